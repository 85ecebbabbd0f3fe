"""Run jobs as subprocesses that see SageMaker's container contract and nothing else of this machine's settings."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from dagster import AssetExecutionContext, DagsterExecutionInterruptedError, ResourceDependency
from pydantic import Field, ValidationError

import penumo_assets
from penumo_assets.jobs.contract import RESULT_NAME, ResultFile, write_atomic
from penumo_assets.resources.compute import supervisor
from penumo_assets.resources.compute.spec import JobFailed, JobResult, JobRunner, JobSpec
from penumo_assets.resources.storage import Storage

LOG_TAIL_LINES = 30
START_GRACE_SECONDS = 10.0
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")


class LocalJobRunner(JobRunner):
    """Jobs as local subprocesses in a scratch folder with the layout of `/opt/ml`.

    Every job runs under a supervisor in its own session: if the orchestrator dies, the job goes on and the
    next launch attaches to it; if the run is cancelled, the whole process group is stopped.
    """

    storage: ResourceDependency[Storage]
    scratch: str = Field(description="Folder for running jobs; on the same disk as the storage root if that is local.")
    job_name_prefix: str = Field(default="penumo", description="First word of every job name.")
    poll_seconds: float = Field(default=0.2, gt=0, description="How often a running job is looked at.")

    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        attempt, reused, started = 1, True, time.monotonic()
        while True:
            job = _LocalJob(self.storage, Path(self.scratch), spec, spec.job_name(self.job_name_prefix, attempt))
            state = job.describe()
            if state == "absent":
                reused = not job.create()
                state = "running"
                context.log.info(f"{'Attached to' if reused else 'Started'} job {job.name}")
            elif state == "running":
                context.log.info(f"Attached to job {job.name}, which is still running")
            elif state == "failed":
                attempt += 1
                continue
            if state == "running":
                self._wait(context, job)
            with _alone_in(Path(self.scratch)):  # a second run may have been attached to the same job
                result, outputs = job.result(), job.publish()
            return JobResult(
                job_name=job.name,
                values=result.values,
                output_prefix=job.output_prefix,
                outputs=outputs,
                metadata={
                    "job_name": job.name,
                    "job_status": "Completed",
                    "job_reused": reused,
                    "job_attempt": attempt,
                    "job_seconds": round(time.monotonic() - started, 1),
                },
            )

    def _wait(self, context: AssetExecutionContext, job: "_LocalJob") -> None:
        try:
            while True:
                running = job.describe() == "running"
                job.stream(context.log.info)
                if not running:
                    return
                time.sleep(self.poll_seconds)
        except (DagsterExecutionInterruptedError, KeyboardInterrupt):
            context.log.info(f"Stopping job {job.name}")
            job.stop()
            raise

    def discard_outputs(self, result: JobResult) -> None:
        # The result goes first: without it the job does not count as finished, so nobody reuses half of it.
        store = self.storage.store
        store.delete([f"{result.output_prefix}/{RESULT_NAME}"])
        store.delete_folder(f"jobs/{result.job_name}")
        shutil.rmtree(Path(self.scratch) / result.job_name, ignore_errors=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system takes back from a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class _LocalJob:
    """One attempt: its scratch folder while it runs, its outputs in the store when it has ended."""

    def __init__(self, storage: Storage, scratch: Path, spec: JobSpec, name: str) -> None:
        self.store = storage.store
        self.spec = spec
        self.name = name
        self.folder = scratch.absolute() / name
        self.opt_ml = self.folder / "ml"
        self.output_prefix = f"jobs/{name}/output"
        self._log_offset = 0

    def describe(self) -> str:
        """``absent``, ``running``, ``completed`` (a result can be had) or ``failed``."""
        if self.store.exists(f"{self.output_prefix}/{RESULT_NAME}"):
            return "completed"
        if not self.folder.exists():
            return "absent"
        if self._alive():
            return "running"
        ended = self.folder / "exit.json"
        if ended.exists() and json.loads(ended.read_text())["code"] == 0 and self._local_result().exists():
            return "completed"
        return "failed"

    def _alive(self) -> bool:
        record = self.folder / "process.json"
        if not record.exists():
            # Another process may be between claiming the folder and starting the job.
            return time.time() - self.folder.stat().st_mtime < START_GRACE_SECONDS
        process = json.loads(record.read_text())
        try:
            found = psutil.Process(process["pid"])
            same = abs(found.create_time() - process["created"]) < 1.0
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def create(self) -> bool:
        """Start the job; False if another process has claimed it first."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.folder.mkdir()
        except FileExistsError:
            return False
        self._lay_out_inputs()
        module = f"penumo_assets.jobs.{self.spec.program}"
        command = [sys.executable, "-m", module, *self.spec.arguments]
        limit = str(self.spec.max_runtime_seconds)
        process = subprocess.Popen(
            [sys.executable, supervisor.__file__, str(self.folder), limit, *command],
            env=self._environment(),
            cwd=self.opt_ml,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        created = psutil.Process(process.pid).create_time()
        write_atomic(self.folder / "process.json", json.dumps({"pid": process.pid, "created": created}).encode())
        return True

    def _input_folder(self, name: str) -> Path:
        if self.spec.kind == "training":
            return self.opt_ml / "input" / "data" / name
        return self.opt_ml / "processing" / "input" / name

    def _lay_out_inputs(self) -> None:
        self.opt_ml.mkdir()
        for name, item in self.spec.inputs.items():
            self.store.download_objects(item.prefix, item.names, self._input_folder(name))
        for name, files in self.spec.documents.items():
            for file, data in files.items():
                write_atomic(self._input_folder(name) / file, data)

    def _environment(self) -> dict[str, str]:
        package_parent = str(Path(penumo_assets.__file__).parent.parent)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {
            "PENUMO_OPT_ML": str(self.opt_ml),
            "PYTHONPATH": package_parent,
            "PYTHONUNBUFFERED": "1",
            "SM_CURRENT_HOST": "algo-1",
            "SM_HOSTS": '["algo-1"]',
            "SM_NUM_CPUS": str(os.cpu_count() or 1),
            "SM_NUM_GPUS": "0",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Threads that wait must not spin: on a shared machine they would take the cores from those that work.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        if self.spec.kind == "training":
            channels = [*self.spec.inputs, *self.spec.documents]
            environment |= {f"SM_CHANNEL_{name.upper()}": str(self._input_folder(name)) for name in channels}
            environment |= {
                "SM_CHANNELS": json.dumps(sorted(channels)),
                "SM_MODEL_DIR": str(self.opt_ml / "model"),
                "SM_OUTPUT_DATA_DIR": str(self.opt_ml / "output" / "data"),
                "TRAINING_JOB_NAME": self.name,
            }
        environment |= dict(self.spec.environment)
        return environment | {name: os.environ[name] for name in self.spec.secrets if name in os.environ}

    def stream(self, emit: Callable[[str], None]) -> None:
        """Pass on the log lines that are new and whole."""
        log = self.folder / "log.txt"
        if not log.exists():
            return
        with log.open("rb") as file:
            file.seek(self._log_offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._log_offset += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            if line.strip():
                emit(line)

    def stop(self) -> None:
        """Stop the whole process group: politely, then by force."""
        record = self.folder / "process.json"
        if not record.exists() or not self._alive():
            return
        process = psutil.Process(json.loads(record.read_text())["pid"])
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=10)
        for survivor in left:
            survivor.kill()
        psutil.wait_procs(left, timeout=5)

    def _local_result(self) -> Path:
        if self.spec.kind == "training":
            return self.opt_ml / "output" / "data" / RESULT_NAME
        return self.opt_ml / "processing" / "output" / self.spec.result_output / RESULT_NAME

    def result(self) -> ResultFile:
        """The checked result.

        Raises
        ------
        JobFailed
            If the program failed, or ended well without a valid result.
        """
        key = f"{self.output_prefix}/{RESULT_NAME}"
        try:
            if self.store.exists(key):
                return ResultFile.model_validate_json(self.store.read(key))
            ended = self.folder / "exit.json"
            if not ended.exists():
                raise JobFailed(f"job {self.name} was killed", log_tail=self._log_tail())
            if json.loads(ended.read_text())["code"] != 0:
                raise JobFailed(f"job {self.name} failed: {self._reason()}", log_tail=self._log_tail())
            return ResultFile.model_validate_json(self._local_result().read_bytes())
        except (FileNotFoundError, ValidationError) as error:
            reason = f"job {self.name} ended without a valid {RESULT_NAME}"
            raise JobFailed(reason, log_tail=self._log_tail()) from error

    def _reason(self) -> str:
        failure = self.opt_ml / "output" / "failure"
        if failure.exists():
            return failure.read_text(encoding="utf-8", errors="replace")[:1024]
        ended = json.loads((self.folder / "exit.json").read_text())
        return "it was stopped" if ended["stopped"] else f"exit status {ended['code']}"

    def _log_tail(self) -> str:
        log = self.folder / "log.txt"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def publish(self) -> dict[str, tuple[str, ...]]:
        """Move the outputs into the store, ``result.json`` last; safe to repeat."""
        index_key = f"{self.output_prefix}/{RESULT_NAME}"
        names_key = f"jobs/{self.name}/outputs.json"
        if self.store.exists(index_key):
            return {output: tuple(names) for output, names in json.loads(self.store.read(names_key)).items()}
        outputs: dict[str, tuple[str, ...]] = {}
        for output in self.spec.outputs:
            folder = self._output_folder(output)
            outputs[output] = tuple(self.store.adopt_folder(folder, f"{self.output_prefix}/{output}"))
        self.store.write(names_key, json.dumps(outputs).encode())
        self.store.write(index_key, self._local_result().read_bytes())
        shutil.rmtree(self.opt_ml, ignore_errors=True)
        return outputs

    def _output_folder(self, output: str) -> Path:
        if self.spec.kind == "processing":
            return self.opt_ml / "processing" / "output" / output
        if output == "model":
            archive = self.opt_ml / "archive"
            archive.mkdir(exist_ok=True)
            with tarfile.open(archive / "model.tar.gz", "w:gz", compresslevel=1) as tar:
                for path in sorted((self.opt_ml / "model").iterdir()):
                    tar.add(path, arcname=path.name)
            return archive
        return self.opt_ml / "output" / "data"
