"""1,000 small objects up and down: the S3 store against boto3, one object after the other and in threads.

Every client talks to the same server in the same run: moto's, in a process of its own, so that its CPU time is not
the clients', with 20 ms before each answer, as S3 has. With ``pip install awscrt`` s3transfer's CRT client runs too.

    python benchmarks/storage.py [--objects 1000] [--kib 48] [--latency 0.02]
"""

import argparse
import importlib.util
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

from penumo_assets.resources.storage.s3 import S3Store

BUCKET = "films"
REGION = "eu-central-1"
KIB = 1024


@dataclass(frozen=True)
class Cost:
    """Seconds of wall time and of this process's CPU time (user and system)."""

    wall: float
    cpu: float


def measured(work: Callable[[], object]) -> Cost:
    """What ``work`` costs."""

    def now() -> tuple[float, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return time.perf_counter(), usage.ru_utime + usage.ru_stime

    before = now()
    work()
    after = now()
    return Cost(after[0] - before[0], after[1] - before[1])


class Boto:
    """boto3's put_object and get_object, in ``threads`` threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.client = boto3.client("s3", config=Config(max_pool_connections=threads))

    def upload(self, folder: Path, names: list[str]) -> None:
        def put(name: str) -> None:
            self.client.put_object(Bucket=BUCKET, Key=f"npz/{name}", Body=(folder / name).read_bytes())

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(put, names))

    def download(self, folder: Path, names: list[str]) -> None:
        def get(name: str) -> None:
            with self.client.get_object(Bucket=BUCKET, Key=f"npz/{name}")["Body"] as body:
                (folder / name).write_bytes(body.read())

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(get, names))


class Crt:
    """s3transfer's manager on the AWS Common Runtime (``pip install awscrt``)."""

    def __init__(self) -> None:
        from s3transfer import crt

        session = botocore.session.get_session()
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        serializer = crt.BotocoreCRTRequestSerializer(session, {"endpoint_url": endpoint, "region_name": REGION})
        credentials = crt.BotocoreCRTCredentialsWrapper(session.get_credentials())
        provider = credentials.to_crt_credentials_provider()
        client = crt.create_s3_crt_client(REGION, crt_credentials_provider=provider, use_ssl=False)
        self.manager = crt.CRTTransferManager(client, serializer)

    def upload(self, folder: Path, names: list[str]) -> None:
        for future in [self.manager.upload(str(folder / name), BUCKET, f"npz/{name}") for name in names]:
            future.result()

    def download(self, folder: Path, names: list[str]) -> None:
        for future in [self.manager.download(BUCKET, f"npz/{name}", str(folder / name)) for name in names]:
            future.result()


class Ours:
    """penumo_assets.resources.storage.s3.S3Store, as the job runners use it."""

    def __init__(self) -> None:
        self.store = S3Store(BUCKET, "")

    def upload(self, folder: Path, names: list[str]) -> None:
        assert self.store.adopt_folder(folder, "npz") == names

    def download(self, folder: Path, names: list[str]) -> None:
        self.store.download_objects("npz", names, folder)


def compare(clients: dict[str, Callable[[], Any]], names: list[str], source: Path, scratch: Path) -> dict[str, Cost]:
    """Up and down with every client, the bytes checked; cost of both ways together."""
    costs = {}
    for label, make in clients.items():
        target = scratch / label.replace(" ", "-")
        target.mkdir()
        client = make()
        up = measured(lambda client=client: client.upload(source, names))
        down = measured(lambda client=client, target=target: client.download(target, names))
        for name in names:
            assert (target / name).read_bytes() == (source / name).read_bytes(), name
        costs[label] = Cost(up.wall + down.wall, up.cpu + down.cpu)
        print(
            f"{label:18s} up {up.wall:6.2f} s ({up.cpu:5.2f} s CPU)   down {down.wall:6.2f} s ({down.cpu:5.2f} s CPU)",
            flush=True,
        )
    return costs


def report(costs: dict[str, Cost]) -> None:
    """The two ratios that count."""
    ours, sequential = costs["S3Store"], costs["boto3 sequential"]
    best, cheapest = min(
        ((label, cost) for label, cost in costs.items() if label != "S3Store"), key=lambda item: item[1].cpu
    )
    print(f"wall time: 1/{sequential.wall / ours.wall:.1f} of boto3, one object after the other")
    print(f"CPU time: {ours.cpu / cheapest.cpu:.2f} of the thriftiest other client ({best})")


def serve(port: int, latency: float) -> None:
    """Run moto's S3 until killed."""
    moto = DomainDispatcherApplication(create_backend_app)

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        time.sleep(latency)
        return moto(environ, start_response)

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            """A line per request would cost as much as the request."""

    run_simple("127.0.0.1", port, slow, threaded=True, request_handler=Quiet)


@contextmanager
def server(latency: float) -> Iterator[None]:
    """The server as a process of its own, and the environment that leads to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    command = [sys.executable, __file__, "--serve", str(port), "--latency", str(latency)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--kib", type=int, default=48, help="size of an object; a tensor has about 48 KiB")
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before each answer")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.latency)
        return
    clients: dict[str, Callable[[], Any]] = {
        "boto3 sequential": lambda: Boto(1),
        "boto3 32 threads": lambda: Boto(32),
    }
    if importlib.util.find_spec("awscrt"):
        clients["s3transfer CRT"] = Crt
    clients["S3Store"] = Ours
    names = [f"patient-{number:05d}.npz" for number in range(options.objects)]
    with server(options.latency), tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        for name in names:
            (source / name).write_bytes(os.urandom(options.kib * KIB))
        report(compare(clients, names, source, Path(scratch)))


if __name__ == "__main__":
    main()
