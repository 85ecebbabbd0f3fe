"""A runner, its store, and the probe as the program of its jobs: for the local runner and for SageMaker's."""

import io
import platform
import subprocess
import tarfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penumo_assets.resources.compute import bundle
from penumo_assets.resources.compute.local import job as local_module
from penumo_assets.resources.compute.local.runner import LocalJobRunner
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobResult, JobSpec
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage

PROBE = Path(__file__).with_name("probe.py")
_TINY = PROBE.parents[1] / "models" / "tiny.py"
_RESNET = "penumo_assets/models/resnet34.py"


class Bench:
    """What tests of a runner need; ``lines`` is the run's log, ``image`` what the runner calls the environment."""

    def __init__(self, runner: JobRunner, store: ObjectStore, folder: Path, image: str = "") -> None:
        self.runner, self.store, self.image = runner, store, image
        self.marker = folder / "starts"
        self.lines: list[str] = []
        log = SimpleNamespace(info=self.lines.append, warning=self.lines.append)
        self.context: Any = SimpleNamespace(log=log, run=SimpleNamespace(run_id="a-run"))
        store.write("landing/c/a/x.txt", b"film;")

    def spec(self, do: str = "nothing", *, kind: str = "processing", lines: int = 0, **changes: Any) -> JobSpec:
        arguments = ("--marker", str(self.marker), "--do", do, "--lines", str(lines))
        outputs = ("made", "result") if kind == "processing" else ("model", "data")
        values = {
            "arguments": arguments,
            "inputs": {"films": JobInput("landing/c", ("a/x.txt",))},
            "documents": {"notes": {"n.json": b"note"}},
            "outputs": outputs,
            "image": self.image,
        } | changes
        return JobSpec(kind, "probe", "films", values.pop("partition", "c 1"), **values)

    def run(self, do: str = "nothing", **changes: Any) -> JobResult:
        return self.runner.run(self.context, self.spec(do, **changes))

    def starts(self) -> int:
        return len(self.marker.read_text().splitlines()) if self.marker.exists() else 0

    def process_id(self) -> int:
        return int(self.marker.read_text().splitlines()[-1])

    def open_gate(self) -> None:
        self.marker.with_suffix(".gate").touch()


def local_bench(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    storage = Storage(root=str(folder / "root"))
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> subprocess.Popen:
        at = command.index("-m")
        return real([*command[:at], str(PROBE), *command[at + 2 :]], **options)

    monkeypatch.setattr(local_module.subprocess, "Popen", popen)
    runner = LocalJobRunner(storage=storage, scratch=str(folder / "scratch"), poll_seconds=0.02)
    return Bench(runner, storage.store, folder, f"python {platform.python_version()}")


def sagemaker_bench(emulator: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Bench:
    from penumo_assets.resources.compute.sagemaker.runner import SageMakerJobRunner
    from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings

    bucket = "b" + "".join(character for character in folder.name.lower() if character.isalnum())[-40:]
    environment = emulator.environment(bucket)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bundle, "source_bundle", bundle_for_tests)
    storage = Storage(root=environment["PENUMO_ROOT"])
    values = {
        "role_arn": environment["PENUMO_SAGEMAKER_ROLE"],
        "image": environment["PENUMO_IMAGE"],
        "job_name_prefix": bucket,
        "poll_seconds": 0.05,
        "training_instance_type": "ml.m5.xlarge",  # this machine has no GPU, which a job on such an instance needs
        "retry_seconds": 0.05,
    }
    chosen = SageMakerSettings(**(values | settings))
    return Bench(SageMakerJobRunner(storage=storage, settings=chosen), storage.store, folder)


_real_bundle = bundle.source_bundle


@cache
def bundle_for_tests() -> bytes:
    """The source bundle with the probe among its programs, and a network of three thousand weights as resnet34."""
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(_real_bundle())) as source, tarfile.open(fileobj=target, mode="w:gz") as tar:
        for member in source.getmembers():
            if "weights" not in member.name and member.name != _RESNET:
                tar.addfile(member, source.extractfile(member))
        tar.add(PROBE, "penumo_assets/jobs/probe.py")
        network = _TINY.read_bytes() + b"\n\nbuild = TinyNetwork\n"
        member = tarfile.TarInfo(_RESNET)
        member.size = len(network)
        tar.addfile(member, io.BytesIO(network))
    return target.getvalue()


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
