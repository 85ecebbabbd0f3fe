"""One job's life, in a thread of its own: waiting, downloading, running, uploading, and how it ended."""

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from penumo_assets_tests.aws.emulator.container import Bucket, Container, DownloadFailed, LogAgent, free_port, split
from penumo_assets_tests.aws.emulator.faults import JobScript
from penumo_assets_tests.aws.emulator.image import image_uri, program_of, python_of
from penumo_assets_tests.aws.emulator.rules import ApiError

TICK_SECONDS = 0.02
CHECKPOINTS = "/opt/ml/checkpoints"


@dataclass(frozen=True)
class JobHost:
    """What all jobs share: clients of the other services, scratch space, and what a role would give a container."""

    client: Callable[[str], Any]
    scratch: Path
    environment: dict[str, str]
    grace_seconds: float

    def require_buckets(self, params: dict[str, Any]) -> None:
        """Raises ApiError if an output goes to a bucket that does not exist."""
        uris = [item["S3Output"]["S3Uri"] for item in params.get("ProcessingOutputConfig", {}).get("Outputs", [])]
        uris += [params[name][key] for name, key in _TRAINING_URIS if name in params]
        for bucket in {split(uri)[0] for uri in uris}:
            try:
                self.client("s3").head_bucket(Bucket=bucket)
            except ClientError as error:
                raise ApiError("ValidationException", f"No S3 bucket {bucket} for the output") from error


_TRAINING_URIS = (("OutputDataConfig", "S3OutputPath"), ("CheckpointConfig", "S3Uri"))


class Job:
    """A Processing or Training job."""

    def __init__(
        self, kind: str, name: str, arn: str, params: dict[str, Any], script: JobScript, host: JobHost
    ) -> None:
        self.kind, self.name, self.arn, self.params, self.script = kind, name, arn, params, script
        self.status, self.detail, self.reason, self.message = "InProgress", "Starting", "", ""
        self.created = datetime.now(UTC)
        self.started: datetime | None = None
        self.finished: datetime | None = None
        self.interruptions = 0
        self._synced: dict[tuple[str, str], int] = {}
        self.restored: set[str] = set()
        self.containers: list[Container] = []
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._host = host
        self._stopping = threading.Event()
        self._port = 0
        self._bucket = Bucket(host.client("s3"))
        training = kind == "Training"
        self.cluster = params["ResourceConfig"] if training else params["ProcessingResources"]["ClusterConfig"]
        self.spot = params.get("EnableManagedSpotTraining", False)
        self._limit = params.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86400)

    @property
    def ended(self) -> bool:
        return self.status in {"Completed", "Failed", "Stopped"}

    def stop(self) -> None:
        if not self.ended:
            self.status = "Stopping"
            self._stopping.set()

    def messages(self) -> list[str]:
        """All lines of its log, which a metric's expression is searched in."""
        return [line for container in self.containers if container.log for line in container.log.messages]

    def state(self) -> dict[str, Any]:
        """The members of a description that change."""
        values: dict[str, Any] = {
            f"{self.kind}JobStatus": self.status,
            "CreationTime": self.created,
            "LastModifiedTime": self.finished or self.started or self.created,
            f"{self.kind}StartTime": self.started,
            f"{self.kind}EndTime": self.finished if self.started else None,
            "FailureReason": self.reason[:1024] or None,
            "ExitMessage": self.message or None,
        }
        if self.kind == "Training":
            values["SecondaryStatus"] = self.detail
            if self.started and self.finished:
                seconds = max(1, round((self.finished - self.started).total_seconds()))
                values |= {"TrainingTimeInSeconds": seconds}
                values |= {"BillableTimeInSeconds": max(1, round(seconds * 0.3)) if self.spot else seconds}
            if self.status == "Completed":
                path = f"{self.params['OutputDataConfig']['S3OutputPath']}/{self.name}/output/model.tar.gz"
                values["ModelArtifacts"] = {"S3ModelArtifacts": path}
        return values

    def _live(self) -> None:
        try:
            status, detail = self._run()
        except DownloadFailed as error:
            status, detail, self.reason = "Failed", "Failed", str(error)
        except Exception as error:
            status, detail = "Failed", "Failed"
            self.reason = f"InternalServerError: the emulator itself failed: {type(error).__name__}: {error}"
        finally:
            for container in self.containers:
                container.kill()
        for container in self.containers:
            if container.log:
                container.log.finish()
        self.finished, self.detail = datetime.now(UTC), detail
        self.status = status
        if self.script.late_log_seconds:
            time.sleep(self.script.late_log_seconds)
        for container in self.containers:
            if container.log:
                container.log.release_late()
            container.remove()

    def _run(self) -> tuple[str, str]:
        """Live once, or again after an interruption; status and secondary status at the end."""
        self._stopping.wait(self.script.delay_seconds)
        if self.script.failure:
            self.reason = self.script.failure
            return "Failed", "Failed"
        while True:
            if self._stopping.is_set():
                return "Stopped", "Stopped"
            self._start_containers()
            outcome = self._watch()
            if outcome != "Interrupted":
                return self._conclude(outcome)
            self.interruptions += 1
            self.detail = "Interrupted"
            self._sync_checkpoints()
            for container in self.containers:
                if container.log:
                    container.log.finish()
                container.remove()

    def _start_containers(self) -> None:
        self.detail = "Downloading"
        count = self.cluster["InstanceCount"]
        hosts = [f"algo-{number + 1}" for number in range(count)]
        self._host.scratch.mkdir(parents=True, exist_ok=True)
        self.containers = []
        for number, host in enumerate(hosts):
            root = Path(tempfile.mkdtemp(dir=self._host.scratch, prefix=f"{host}-"))
            container = Container(root, python_of(image_uri(self.params), root / "image"), host, hosts)
            self.containers.append(container)
            channels = [item["ChannelName"] for item in self.params.get("InputDataConfig", [])]
            container.lay_out(self.kind, self.params.get("HyperParameters", {}), channels)
            for uri, data_type, distribution, path in self._inputs():
                self._bucket.fetch(uri, data_type, distribution, container.path(path), number, count)
            self._restore_checkpoints(container)
        self._port = free_port()
        self.started = self.started or datetime.now(UTC)
        self.detail = "Training"
        if self.script.hang:
            return
        stamp = int(time.time() * 1000)
        group = f"/aws/sagemaker/{self.kind}Jobs"
        late = bool(self.script.late_log_seconds)
        for container in self.containers:
            log = LogAgent(self._host.client("logs"), group, f"{self.name}/{container.host}-{stamp}", late)
            container.start(self._command(), self._environment(), log)

    def _inputs(self) -> list[tuple[str, str, str, str]]:
        if self.kind == "Processing":
            sources = [item["S3Input"] for item in self.params.get("ProcessingInputs", [])]
            paths = [source["LocalPath"] for source in sources]
        else:
            channels = self.params.get("InputDataConfig", [])
            sources = [item["DataSource"]["S3DataSource"] for item in channels]
            paths = [f"/opt/ml/input/data/{item['ChannelName']}" for item in channels]
        return [
            (source["S3Uri"], source["S3DataType"], source.get("S3DataDistributionType", "FullyReplicated"), path)
            for source, path in zip(sources, paths, strict=True)
        ]

    def _command(self) -> list[str]:
        # AWS's images hand a training that names no entry point over to their toolkit.
        program = program_of(self.params)
        return [*program.get("ContainerEntrypoint", ["train"]), *program.get("ContainerArguments", [])]

    def _environment(self) -> dict[str, str]:
        given = {"TRAINING_JOB_NAME": self.name} if self.kind == "Training" else {}
        given["MASTER_PORT"] = str(self._port)  # hosts here share their ports, and jobs those of other jobs
        return self._host.environment | given | self.params.get("Environment", {})

    def _watch(self) -> str:
        """Until all programs have ended, or one failed, or it must stop."""
        deadline, synced = time.monotonic() + self._limit, time.monotonic()
        while True:
            codes = [container.exit_code for container in self.containers]
            if any(codes) or (all(code == 0 for code in codes) and not self.script.hang):
                return "Ended"
            if self._stopping.is_set() or time.monotonic() > deadline:
                self._stop_containers()
                return "Stopped" if self._stopping.is_set() else "MaxRuntimeExceeded"
            if self.script.interrupt_at_checkpoint and not self.interruptions:
                if self._has_checkpoint():
                    self._stop_containers()
                    return "Interrupted"
            elif time.monotonic() - synced > 1:
                self._sync_checkpoints()
                synced = time.monotonic()
            time.sleep(TICK_SECONDS)

    def _stop_containers(self) -> None:
        """All are asked at the same time, and have the same time to end."""
        until = time.monotonic() + self._host.grace_seconds
        for container in self.containers:
            container.ask_to_stop()
        for container in self.containers:
            container.wait(until)

    def _conclude(self, outcome: str) -> tuple[str, str]:
        self.detail = "Uploading"
        failed = [container for container in self.containers if container.exit_code]
        self._stop_containers()  # those that still run where another host has failed
        self._sync_checkpoints()
        self._upload_outputs("Continuous")
        if outcome != "Ended":
            return "Stopped", outcome
        if self.kind == "Training":
            self._upload_training(bool(failed))
        if failed:
            said = failed[0].text("failure") if self.kind == "Training" else ""
            self.message = "".join(container.text("message") for container in self.containers)[:1024]
            self.reason = f"AlgorithmError: {said}, exit code: {failed[0].exit_code}"
            return "Failed", "Failed"
        self._upload_outputs("EndOfJob")
        return "Completed", "Completed"

    def _upload_outputs(self, mode: str) -> None:
        """Outputs of a processing job; those that go continuously are there however it ends."""
        for item in self.params.get("ProcessingOutputConfig", {}).get("Outputs", []):
            target = item["S3Output"]
            for container in self.containers if target["S3UploadMode"] == mode else []:
                self._bucket.upload_folder(container.path(target["LocalPath"]), target["S3Uri"])

    def _upload_training(self, failed: bool) -> None:
        first, target = self.containers[0], f"{self.params['OutputDataConfig']['S3OutputPath']}/{self.name}/output"
        self._bucket.upload(first.archive("output/data", first.root / "output.tar.gz"), f"{target}/output.tar.gz")
        if not failed:
            self._bucket.upload(first.archive("model", first.root / "model.tar.gz"), f"{target}/model.tar.gz")

    def _has_checkpoint(self) -> bool:
        """Whether a host has written one since it started; which one does is the program's affair."""
        return any(self._has_new_checkpoint(container) for container in self.containers)

    def _has_new_checkpoint(self, container: Container) -> bool:
        folder = container.path(CHECKPOINTS)
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return any(path.relative_to(folder).as_posix() not in self.restored for path in files)

    def _sync_checkpoints(self) -> None:
        """Upload what has changed on any host since the last time: every file, hidden and temporary ones too.

        What one host has written is never copied to the others while they run.
        """
        if self.kind != "Training" or "CheckpointConfig" not in self.params or self.script.hang:
            return
        uri = self.params["CheckpointConfig"]["S3Uri"].rstrip("/")
        for container in self.containers:
            folder = container.path(CHECKPOINTS)
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = path.relative_to(folder).as_posix()
                with contextlib.suppress(FileNotFoundError):  # replaced by a newer one meanwhile
                    changed = path.stat().st_mtime_ns
                    if self._synced.get((container.host, name)) != changed:
                        self._bucket.upload(path, f"{uri}/{name}")
                        self._synced[container.host, name] = changed

    def _restore_checkpoints(self, container: Container) -> None:
        if self.kind == "Training" and "CheckpointConfig" in self.params:
            uri = self.params["CheckpointConfig"]["S3Uri"]
            for found in self._bucket.below(uri):  # all whose key begins so, which is why it ends with a slash
                name = found.removeprefix(uri).lstrip("/")
                path = container.path(CHECKPOINTS) / name
                self._bucket.download(found, path)
                self._synced[container.host, name] = path.stat().st_mtime_ns
                self.restored.add(name)
