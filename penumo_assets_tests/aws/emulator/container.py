"""One host of a job: its ``/opt/ml`` in a scratch folder, its program, and its lines on their way to CloudWatch."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from botocore.exceptions import ClientError

OPT_ML = "/opt/ml"
_PASSED_ON = ("LD_LIBRARY_PATH", "OMP_NUM_THREADS")


class DownloadFailed(Exception):
    """An input is not there, or its manifest is not one; the message is what SageMaker would say."""


@dataclass(frozen=True)
class Bucket:
    """S3 as a container sees it: whole folders down and up, several objects at a time."""

    client: Any

    def download(self, uri: str, target: Path) -> None:
        bucket, key = split(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.client.download_file(bucket, key, str(target))
        except ClientError as error:
            raise DownloadFailed(f"ClientError: Data download failed: {uri}: {error}") from error

    def upload(self, source: Path, uri: str) -> None:
        self.client.upload_file(str(source), *split(uri))

    def upload_folder(self, folder: Path, uri: str) -> None:
        files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: self.upload(path, f"{uri}/{path.relative_to(folder).as_posix()}"), files))

    def below(self, uri: str) -> list[str]:
        bucket, prefix = split(uri)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [f"s3://{bucket}/{item['Key']}" for page in pages for item in page.get("Contents", [])]

    def objects(self, uri: str, data_type: str) -> list[tuple[str, str]]:
        """URI and relative name of every object that an input names."""
        if data_type == "S3Prefix":
            start = uri if uri.endswith("/") else uri + "/"
            return [(found, found.removeprefix(start)) for found in self.below(start)]
        bucket, key = split(uri)
        try:
            content = json.loads(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())
        except (ClientError, ValueError) as error:
            raise DownloadFailed(f"ClientError: Manifest {uri} cannot be read: {error}") from error
        head, *names = content if isinstance(content, list) and content else [None]
        if not isinstance(head, dict) or not str(head.get("prefix", "")).startswith("s3://") or not names:
            raise DownloadFailed(f"ClientError: Manifest {uri} must be a list: a prefix, then names of objects")
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise DownloadFailed(f"ClientError: Manifest {uri} has a name that is empty, no text, or not the only one")
        return [(head["prefix"] + name, name) for name in names]

    def fetch(self, uri: str, data_type: str, distribution: str, folder: Path, number: int, count: int) -> None:
        """Put an input, or this host's share of it, into ``folder``."""
        found = self.objects(uri, data_type)
        share = found[number::count] if distribution == "ShardedByS3Key" else found
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: self.download(item[0], folder / item[1]), share))


def split(uri: str) -> tuple[str, str]:
    parsed = urlparse(uri)
    return parsed.netloc, parsed.path.lstrip("/")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Container:
    """A started program and what belongs to it: a disk of its own, and the image's Python."""

    def __init__(self, folder: Path, python: Path, host: str, hosts: list[str]) -> None:
        self.root = folder / "opt" / "ml"
        self._folder, self._python = folder, python
        self.host = host
        self.hosts = hosts
        self.log: LogAgent | None = None
        self._process: subprocess.Popen | None = None

    def lay_out(self, kind: str, hyperparameters: dict[str, str], channels: list[str]) -> None:
        """The files that SageMaker writes before a program starts; its /opt/ml is this container's folder."""
        config = self.root / ("config" if kind == "Processing" else "input/config")
        config.mkdir(parents=True)
        cluster = {"current_host": self.host, "hosts": self.hosts, "network_interface_name": "lo"}
        (config / "resourceconfig.json").write_text(json.dumps(cluster))
        if kind == "Training":
            here = json.dumps(hyperparameters).replace(f"{OPT_ML}/", f"{self.root}/")
            (config / "hyperparameters.json").write_text(here)
            given = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
            (config / "inputdataconfig.json").write_text(json.dumps(dict.fromkeys(channels, given)))
            for folder in ("model", "output/data", "checkpoints"):
                (self.root / folder).mkdir(parents=True)
        (self.root / "output").mkdir(exist_ok=True)

    def path(self, inside: str) -> Path:
        """Where a path of the container lies on this machine."""
        return self.root / Path(inside).relative_to(OPT_ML)

    def start(self, command: list[str], environment: dict[str, str], log: "LogAgent") -> None:
        here = [str(self.path(text)) if text.startswith(OPT_ML + "/") else text for text in command]
        binaries = self._python.parent
        here[0] = shutil.which(here[0], path=str(binaries)) or here[0]
        machine = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {
            "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
            "PIP_CONFIG_FILE": os.devnull,  # this machine's is not the image's
            "PENUMO_OPT_ML": str(self.root),
            "SAGEMAKER_BASE_DIR": str(self.root),
            # Threads that wait must not spin: on this machine they would take the cores from those that work.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self._process = subprocess.Popen(
            here,
            env=machine | environment,
            cwd=self.root,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.log = log
        log.follow(self._process.stdout)

    @property
    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    def ask_to_stop(self) -> None:
        """SIGTERM to the program, nobody else: what it has started is its own affair."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, until: float) -> None:
        """Wait for its end until the clock shows ``until``, and kill all that is left."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, until - time.monotonic()))
            self.kill()

    def kill(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def text(self, name: str) -> str:
        """Content of ``output/failure`` or ``output/message``, as much as SageMaker shows."""
        path = self.root / "output" / name
        return path.read_bytes()[:1024].decode("utf-8", "ignore") if path.exists() else ""

    def archive(self, folder: str, target: Path) -> Path:
        with tarfile.open(target, "w:gz", compresslevel=0) as tar:
            for path in sorted((self.root / folder).iterdir()):
                tar.add(path, arcname=path.name)
        return target

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class LogAgent:
    """Reads a program's lines and puts them into a log stream, each with the time at which it was written."""

    PAUSE_SECONDS = 0.1

    def __init__(self, client: Any, group: str, stream: str, late: bool) -> None:
        self._client, self._group, self._stream, self._late = client, group, stream, late
        self._lock = threading.Lock()
        self._waiting: list[dict[str, Any]] = []
        self._held: list[dict[str, Any]] = []
        self._count = 0
        self.messages: list[str] = []
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        for create, names in (
            (client.create_log_group, {"logGroupName": group}),
            (client.create_log_stream, {"logGroupName": group, "logStreamName": stream}),
        ):
            try:
                create(**names)
            except client.exceptions.ResourceAlreadyExistsException:
                continue

    def follow(self, pipe: Any) -> None:
        self._threads = [threading.Thread(target=self._read, args=[pipe]), threading.Thread(target=self._send)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Wait until all that was written has been sent, lines that are held back aside."""
        for thread in self._threads:
            thread.join()

    def release_late(self) -> None:
        self._put(self._held)
        self._held = []

    def _read(self, pipe: Any) -> None:
        for line in pipe:
            event = {"timestamp": int(time.time() * 1000), "message": line.decode("utf-8", "replace").rstrip("\n")}
            if not event["message"]:
                continue  # CloudWatch takes no empty event
            self.messages.append(str(event["message"]))
            with self._lock:
                self._count += 1
                (self._held if self._late and self._count % 3 == 0 else self._waiting).append(event)
        self._ended.set()

    def _send(self) -> None:
        while True:
            ended = self._ended.wait(self.PAUSE_SECONDS)
            with self._lock:
                batch, self._waiting = self._waiting, []
            self._put(batch)
            if ended:
                return

    def _put(self, events: list[dict[str, Any]]) -> None:
        for start in range(0, len(events), 5000):
            batch = sorted(events[start : start + 5000], key=lambda event: event["timestamp"])
            self._client.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=batch)
