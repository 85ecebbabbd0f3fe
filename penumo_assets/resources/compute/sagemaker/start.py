"""What a SageMaker container runs first: unpack the sources that lie beside this file, then run one job program.

``python3 start.py {processing|training} PROGRAM [ARGUMENT ...]``. A training program gets its arguments from the
job's hyperparameters. A tuning job names no entry point, so in its trials the image's own starts this file as a user
script (https://github.com/aws/sagemaker-training-toolkit), and PENUMO_TRIAL_PROGRAM names the program. The program
sees the same variables that the local runner sets; its output passes through here, so that the last line of the log
can say how many lines there were. Knows only the standard library: nothing is installed yet when it starts.

Reference: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from urllib.parse import urlparse

BUNDLE_NAME = "bundle.tar.gz"
CODE_INPUT = "code"
SHARE_INPUT = "share"  # by host, the objects that it alone needs
PACKAGE = "penumo_assets"
CONSTRAINTS_NAME = "constraints.txt"
END_OF_LOG = "penumo: end of log, lines:"
SECRET_SUFFIX = "_SECRET_ARN"
TRIAL_VARIABLE = "PENUMO_TRIAL_PROGRAM"
GPU_VARIABLE = "PENUMO_GPU_INSTANCE"  # the type of an instance that has a GPU
CHECKPOINTS_VARIABLE = "PENUMO_CHECKPOINTS_URI"  # where SageMaker keeps the checkpoints of a search's trials
_KEPT_FROM_PIP = ("AWS_", "MLFLOW_", "PENUMO_", "SM_")
FETCHES = 16  # at a time
MESSAGE_BYTES = 1000  # SageMaker shows the first 1,024
stopping = Event()  # somebody has asked the container to stop


def main() -> None:
    trial = os.environ.get(TRIAL_VARIABLE)
    kind, program, *arguments = ["training", trial] if trial else sys.argv[1:]
    opt_ml = Path(os.environ.get("PENUMO_OPT_ML", "/opt/ml"))
    failure = opt_ml / "output" / "failure"
    lines, code = 0, 1
    try:
        folder = unpack(Path(__file__).with_name(BUNDLE_NAME), opt_ml / "code")
        environment = dict(os.environ) | container_environment(kind, opt_ml) | {"PYTHONPATH": str(folder)}
        if trial:  # all trials of a tuning job are given the same place for checkpoints
            environment["PENUMO_CHECKPOINT_FOLDER"] = environment.get("TRAINING_JOB_NAME", "")
        lines, code = complete_installation(program, folder / PACKAGE, failure)
        if code == 0:
            code = require_cuda(environment, failure)
        if code == 0:
            fetch_share(opt_ml, environment["SM_CURRENT_HOST"])
            environment |= secrets(environment)
            if kind == "training":
                arguments = hyperparameter_arguments(opt_ml / "input" / "config" / "hyperparameters.json", bool(trial))
            command = [sys.executable, "-m", f"{PACKAGE}.jobs.{program}", *arguments]
            written, code, _ = run(command, environment, opt_ml)
            lines += written
            if trial and not stopping.is_set():  # else it goes on from them
                remove_checkpoints(opt_ml, environment)
        if code < 0:
            explain(failure, f"killed by signal {-code}" + (", out of memory?" if code == -signal.SIGKILL else ""))
    except Exception as error:
        explain(failure, f"the job's program could not be started: {type(error).__name__}: {error}")
        raise
    finally:
        if kind == "processing" and failure.exists():
            # SageMaker shows this file of a processing job; of a training job it shows output/failure itself.
            text = failure.read_bytes()[:MESSAGE_BYTES].decode("utf-8", "ignore")
            failure.with_name("message").write_text(text, encoding="utf-8")
        print(f"{END_OF_LOG} {lines}", flush=True)
    sys.exit(code if code >= 0 else 128 - code)


def explain(failure: Path, reason: str) -> None:
    """Leave a reason where the program has left none."""
    if not failure.exists():
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(reason, encoding="utf-8")


def unpack(archive: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def container_environment(kind: str, opt_ml: Path) -> dict[str, str]:
    """The variables of SageMaker's script mode, from the files that SageMaker lays out."""
    place = opt_ml / "input" / "config" if kind == "training" else opt_ml / "config"
    cluster = json.loads((place / "resourceconfig.json").read_text())
    environment = {
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "SM_CURRENT_HOST": cluster["current_host"],
        "SM_HOSTS": json.dumps(cluster["hosts"]),
        "SM_NUM_CPUS": str(os.cpu_count() or 1),
    }
    if interface := cluster.get("network_interface_name"):
        environment |= {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    if kind == "training":
        data = opt_ml / "input" / "data"
        channels = sorted(path.name for path in data.iterdir() if path.is_dir() and path.name != CODE_INPUT)
        environment |= {f"SM_CHANNEL_{name.upper()}": str(data / name) for name in channels}
        environment |= {
            "SM_CHANNELS": json.dumps(channels),
            "SM_MODEL_DIR": str(opt_ml / "model"),
            "SM_OUTPUT_DATA_DIR": str(opt_ml / "output" / "data"),
        }
    return environment


def fetch_share(opt_ml: Path, host: str) -> None:
    """Put the objects of this host's share where SageMaker puts inputs."""
    inputs = opt_ml / "processing" / "input"
    listed = inputs / SHARE_INPUT / f"{host}.json"
    if not listed.exists():
        return
    import boto3  # SageMaker's images bring it
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    config = Config(max_pool_connections=FETCHES, retries={"mode": "standard", "max_attempts": 10})
    client, one_thread = boto3.client("s3", config=config), TransferConfig(use_threads=False)
    shares = json.loads(listed.read_text(encoding="utf-8"))
    wanted = [(name, share["prefix"], file) for name, share in shares.items() for file in share["names"]]

    def fetch(item: tuple[str, str, str]) -> None:
        name, prefix, file = item
        bucket, _, folder = prefix.removeprefix("s3://").partition("/")
        target = inputs / name / file
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, folder + file, str(target), Config=one_thread)

    with ThreadPoolExecutor(FETCHES) as pool:
        list(pool.map(fetch, wanted))


def secrets(environment: dict[str, str]) -> dict[str, str]:
    """The value of ``NAME`` for every ``NAME_SECRET_ARN``: a job's own description shows only where it is kept."""
    wanted = {name: arn for name, arn in environment.items() if name.endswith(SECRET_SUFFIX) and arn}
    if not wanted:
        return {}
    import boto3  # SageMaker's images bring it

    found = {}
    for name, arn in wanted.items():
        client = boto3.client("secretsmanager", region_name=arn.split(":")[3])
        found[name.removesuffix(SECRET_SUFFIX)] = client.get_secret_value(SecretId=arn)["SecretString"]
    return found


def requirements_of(program: str, package: Path) -> list[Path]:
    """The files that name what a program needs beside the image."""
    preparing, training = package / "jobs" / "prepare" / "requirements.txt", package / "models" / "requirements.txt"
    return {"train": [training], "evaluate": [training], "segment_train": [preparing, training]}.get(
        program, [preparing]
    )


def complete_installation(program: str, package: Path, failure: Path) -> tuple[int, int]:
    """Install what the image lacks; an image that has everything needs no network. Lines written and exit code.

    pip gets neither credentials nor addresses of this job, and runs nobody's build script.
    """
    lacking = [file for file in requirements_of(program, package) if not satisfied(file)]
    if not lacking:
        return 0, 0
    given = {name: text for name, text in os.environ.items() if not name.startswith(_KEPT_FROM_PIP)}
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
    files = [text for file in lacking for text in ("--requirement", str(file))]
    steps = [["install", "--only-binary=:all:", "--constraint", str(package / CONSTRAINTS_NAME), *files]]
    if _has("opencv-python"):  # it shares its folder cv2 with the build without windows that the list names
        steps.insert(0, ["uninstall", "--yes", "opencv-python"])
    lines = 0
    for step in steps:
        written, code, tail = run([*pip, *step], given, package)
        lines += written
        if code:
            errors = [line for line in tail if line.startswith("ERROR")] or list(tail)[-1:]
            explain(
                failure,
                f"pip cannot install what the image lacks: {' '.join(errors)[:600]} (set PENUMO_IMAGE to "
                "an image that has it, or PENUMO_PIP_INDEX_URL to an index that the job reaches)",
            )
            return lines, code
    return lines, 0


def require_cuda(environment: dict[str, str], failure: Path) -> int:
    """Fail where the instance has a GPU that torch does not see, rather than pay for it and use its CPU."""
    instance_type = environment.get(GPU_VARIABLE)
    if not instance_type:
        return 0
    program = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
    code = subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode
    if code:
        explain(
            failure,
            f"torch finds no CUDA on {instance_type}: the image and the instance's driver do not fit "
            "together; set PENUMO_IMAGE, or an instance type without a GPU",
        )
    return code


def remove_checkpoints(opt_ml: Path, environment: dict[str, str]) -> None:
    """Remove the checkpoints of a trial that has ended, here and in S3: each later one would be given them."""
    name, uri = environment.get("PENUMO_CHECKPOINT_FOLDER"), environment.get(CHECKPOINTS_VARIABLE)
    if not name or not uri:
        return
    shutil.rmtree(opt_ml / "checkpoints" / name, ignore_errors=True)
    import boto3  # SageMaker's images bring it

    place = urlparse(uri)
    bucket = boto3.resource("s3").Bucket(place.netloc)
    try:
        bucket.objects.filter(Prefix=f"{place.path.strip('/')}/{name}/").delete()
    except Exception as error:  # the trial has its result
        print(f"WARNING the trial's checkpoints stay in S3: {type(error).__name__}", flush=True)


def _has(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def satisfied(requirements: Path) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        from packaging.requirements import Requirement
    except ImportError:
        return False
    lines = [line for line in requirements.read_text().splitlines() if line.strip() and not line.startswith("#")]
    try:
        return all(r.specifier.contains(version(r.name), prereleases=True) for r in map(Requirement, lines))
    except PackageNotFoundError:
        return False


def hyperparameter_arguments(path: Path, trial: bool) -> list[str]:
    """``--name value`` pairs. A trial's file also holds the toolkit's and the tuner's own, and texts as JSON."""
    values = json.loads(path.read_text()) if path.exists() else {}
    if trial:
        own = {name: text for name, text in values.items() if not name.startswith(("sagemaker_", "_"))}
        values = {name: json.loads(text) if text.startswith('"') else text for name, text in own.items()}
    return [text for name, value in values.items() for text in (f"--{name}", value)]


def run(command: list[str], environment: dict[str, str], folder: Path) -> tuple[int, int, deque[str]]:
    """Run a command and pass its output on: the number of lines (blank ones aside), how it ended, the last lines."""
    process: subprocess.Popen[bytes] | None = None

    def stop(*_: object) -> None:
        stopping.set()
        if process:
            process.terminate()

    # SageMaker asks the container to stop two minutes before it takes the machine: the program shall know. Before the
    # program starts: it would inherit a signal that is ignored here.
    signal.signal(signal.SIGTERM, stop)
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if stopping.is_set():
        process.terminate()
    assert process.stdout
    count, tail = 0, deque[str](maxlen=20)
    for line in process.stdout:
        if line.strip():
            count += 1
            tail.append(line.decode("utf-8", "replace").strip())
            sys.stdout.buffer.write(line if line.endswith(b"\n") else line + b"\n")
            sys.stdout.buffer.flush()
    return count, process.wait(), tail


if __name__ == "__main__":
    main()
