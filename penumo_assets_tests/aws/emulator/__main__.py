"""``make emulate``: AWS on loopback for hand use, without an account. Everything is gone when it stops."""

import argparse
import shlex
import signal
import sys
import tempfile
import threading
from pathlib import Path

from penumo_assets_tests.aws import programs
from penumo_assets_tests.aws.emulator.server import IMAGE, Emulator, Request

BUCKET = "penumo-emulated"
DEMO_KEY = "phantoms-have-no-secrets"


def settings(emulator: Emulator, folder: Path) -> dict[str, str]:
    """What a shell needs; ``folder`` holds what is a file on AWS too: Dagster's instance and MLflow's database."""
    secret = emulator.client("secretsmanager").create_secret(Name="penumo/deid-key", SecretString=DEMO_KEY)
    return emulator.environment(BUCKET) | {
        "PENUMO_INFERENCE_IMAGE": IMAGE,
        "PENUMO_DEID_KEY": DEMO_KEY,
        "PENUMO_DEID_KEY_SECRET_ARN": secret["ARN"],
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "DAGSTER_HOME": str(folder / "dagster"),
    }


def show(request: Request) -> None:
    """A line of the request log; descriptions would only repeat themselves."""
    if not request.operation.startswith("Describe") or request.error not in {"", "ValidationException"}:
        print(f"{request.at:%H:%M:%S} {request.operation} {request.name} {request.error}", flush=True)


def compare(hosts: int) -> None:
    """Print what one host learns and what several do through a spot interruption."""
    from penumo_assets_tests.aws.several_hosts import difference, train_on  # with torch, which takes seconds

    emulator = Emulator().start()
    try:
        print(f"training on one host, then on {hosts}: some minutes", flush=True)
        one, more = train_on(emulator, 1), train_on(emulator, hosts)
    finally:
        emulator.stop()
    for name in ("train_loss", "validation_loss"):
        for number, result in ((1, one), (hosts, more)):
            values = " ".join(f"{epoch[name]:.6f}" for epoch in result["history"])
            print(f"{name:16} {number} host{'s' if number > 1 else ' '}: {values}")
    print(f"largest difference between their weights: {difference(one['weights'], more['weights']):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make emulate", description=__doc__)
    parser.add_argument("--port", type=int, default=4599, help="port on 127.0.0.1 (default 4599; 0: any)")
    parser.add_argument("--hosts", type=int, help="train on one host and on this many, compare the models, and end")
    parser.add_argument("--write", type=Path, help="file to leave the export lines in, for `. FILE`")
    arguments = parser.parse_args()
    if arguments.hosts:
        compare(arguments.hosts)
        return
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="penumo-emulated-") as folder:
        try:
            emulator = Emulator(arguments.port, show).start()
            emulator.limits.requests_per_second, emulator.limits.unseen_seconds = 10, 1.0
        except (OSError, SystemExit):  # werkzeug exits where a port is taken
            sys.exit(f"port {arguments.port} cannot be had: is an emulator running already?")
        values = settings(emulator, Path(folder))
        lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
        print("\n".join(lines))
        if arguments.write:
            arguments.write.parent.mkdir(parents=True, exist_ok=True)
            arguments.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(f"\nIn another terminal: . {arguments.write}")
        server = "AWS's own serve" if programs.has_torchserve() else f"our serve (no {programs.VARIABLE}, or no Java)"
        print(f"Endpoints are answered by {server}. Requests of the job API follow; Ctrl-C ends it all.", flush=True)
        ended.wait()
        emulator.stop()
        if arguments.write:
            arguments.write.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
