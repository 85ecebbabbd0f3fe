"""One attempt at a job on this machine: its folder, its processes, and what becomes of its outputs."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

import penumo_assets
from penumo_assets.jobs.contract import KEPT, RESULT_NAME, ResultFile, cores, write_atomic
from penumo_assets.resources.compute.local import claims, supervisor
from penumo_assets.resources.compute.spec import JobFailed, JobSpec
from penumo_assets.resources.storage.object_store import ObjectStore

LOG_TAIL_LINES = 30
FULL_BYTES = 16 * 2**20
OUTPUT_FOLDER = "processing/output"
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")


class LocalJob:
    """One attempt: its scratch folder while it runs, its outputs in the store when it has ended."""

    def __init__(self, store: ObjectStore, scratch: Path, spec: JobSpec, name: str) -> None:
        self.store = store
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
        if claims.is_held(self.folder):
            return "running"
        ended = self._ended()
        # The result is a program's last act: one whose supervisor was killed has ended well if it is there.
        well = (ended is None or ended["code"] == 0) and self._valid_result() is not None
        return "completed" if well else "failed"

    def create(self, before: "LocalJob | None" = None) -> bool:
        """Start the job; False if another process has claimed it first.

        ``before`` is the attempt that failed: a training goes on from its checkpoints, and the rest of it goes.

        Raises
        ------
        JobFailed
            If the scratch folder cannot take it.
        """
        try:
            claim = claims.claim(self.folder, {"asset": self.spec.asset, "partition": self.spec.partition})
            if claim is None:
                return False
            try:
                self._start(claim, before)
            except BaseException:
                shutil.rmtree(self.folder, ignore_errors=True)
                raise
            finally:
                os.close(claim)
        except OSError as error:
            reason = f"job {self.name} cannot be started in the scratch folder: {error.strerror or error}"
            raise JobFailed(reason, transient=True) from error
        return True

    def _start(self, claim: int, before: "LocalJob | None") -> None:
        self._lay_out(before)
        module = f"penumo_assets.jobs.{self.spec.program}"
        command = [sys.executable, "-m", module, *self.spec.arguments]
        limit = str(self.spec.max_runtime_seconds)
        process = subprocess.Popen(
            [sys.executable, supervisor.__file__, str(self.folder), str(claim), limit, *command],
            env=self._environment(),
            cwd=self.opt_ml,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(claim,),
        )
        write_atomic(self.folder / "process.json", json.dumps({"pid": process.pid}).encode())

    def end_remains(self, heir: Path) -> None:
        """Of an attempt that failed only its log stays: its processes end, what the next uses goes to ``heir``."""
        claims.kill(claims.family_of(self.opt_ml))
        for name in ("checkpoints", *([OUTPUT_FOLDER] if self.spec.keeps else [])):
            if (self.opt_ml / name).is_dir():
                (heir / name).parent.mkdir(exist_ok=True)
                (self.opt_ml / name).rename(heir / name)
        shutil.rmtree(self.opt_ml, ignore_errors=True)

    def _input_folder(self, name: str) -> Path:
        if self.spec.kind == "training":
            return self.opt_ml / "input" / "data" / name
        return self.opt_ml / "processing" / "input" / name

    def _lay_out(self, before: "LocalJob | None") -> None:
        self.opt_ml.mkdir()
        for name, item in self.spec.inputs.items():
            self.store.download_objects(item.prefix, item.names, self._input_folder(name))
        for name, files in self.spec.documents.items():
            self._write_document(name, files)
        if before is not None:
            before.end_remains(self.opt_ml)
            if self.spec.keeps:
                self._lay_out_kept()

    def _write_document(self, name: str, files: Mapping[str, bytes]) -> None:
        for file, data in files.items():
            write_atomic(self._input_folder(name) / file, data)

    def _lay_out_kept(self) -> None:
        """Tell the program what lies among its outputs already."""
        self._local_result().unlink(missing_ok=True)  # it would say that all is done
        folders = {output: self._output_folder(output) for output in self.spec.outputs}
        # What the system had not written when it went down is empty.
        outputs = {
            output: [path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.stat().st_size]
            for output, folder in folders.items()
        }
        result = folders[self.spec.result_output]
        self._write_document(KEPT, self.spec.kept_files(outputs, lambda name: (result / name).read_bytes()))

    def _environment(self) -> dict[str, str]:
        package_parent = str(Path(penumo_assets.__file__).parent.parent)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {
            claims.ROOT_VARIABLE: str(self.opt_ml),
            "PYTHONPATH": package_parent,
            "PYTHONUNBUFFERED": "1",
            "SM_CURRENT_HOST": "algo-1",
            "SM_HOSTS": '["algo-1"]',
            "SM_NUM_CPUS": str(cores()),
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
        """Stop all of its processes: politely, by their supervisor if it lives, then by force."""
        family, record = claims.family_of(self.opt_ml), self.folder / "process.json"
        leader = json.loads(record.read_bytes())["pid"] if record.exists() else None
        for process in [process for process in family if process.pid == leader] or family:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, left = psutil.wait_procs(family, timeout=10)
        claims.kill(left)
        self.remove_inputs()

    def remove_inputs(self) -> None:
        """Leave nothing of landing behind. The supervisor does so too, unless it was killed."""
        for inputs in (self.opt_ml / "processing" / "input", self.opt_ml / "input"):
            shutil.rmtree(inputs, ignore_errors=True)

    def _ended(self) -> dict[str, Any] | None:
        """How the program ended; None if its supervisor was killed before it could tell."""
        ended = self.folder / "exit.json"
        return json.loads(ended.read_bytes()) if ended.exists() else None

    def _valid_result(self) -> ResultFile | None:
        try:
            return ResultFile.model_validate_json(self._local_result().read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _local_result(self) -> Path:
        if self.spec.kind == "training":
            return self.opt_ml / "output" / "data" / RESULT_NAME
        return self.opt_ml / OUTPUT_FOLDER / self.spec.result_output / RESULT_NAME

    def result(self) -> ResultFile:
        """The checked result.

        Raises
        ------
        JobFailed
            If the program failed, or ended well without a valid result.
        """
        key = f"{self.output_prefix}/{RESULT_NAME}"
        self.remove_inputs()
        if self.store.exists(key):
            return ResultFile.model_validate_json(self.store.read(key))
        ended, result = self._ended(), self._valid_result()
        if ended is not None and ended["code"] != 0:
            raise JobFailed(f"job {self.name} failed: {self._reason(ended)}", log_tail=self._log_tail())
        if result is None:
            how = f"ended without a valid {RESULT_NAME}" if ended else "was killed, or the disk of its folder is full"
            raise JobFailed(f"job {self.name} {how}", log_tail=self._log_tail())
        return result

    def _reason(self, ended: Mapping[str, Any]) -> str:
        failure = self.opt_ml / "output" / "failure"
        if failure.exists():
            return failure.read_text(encoding="utf-8", errors="replace")[:1024]
        if ended["stopped"]:
            return "it was stopped"
        free = shutil.disk_usage(self.folder).free
        hint = f"; the disk of its folder is full but for {free // 2**20} MiB" if free < FULL_BYTES else ""
        return f"exit status {ended['code']}{hint}"  # on a full disk it could not say why

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
            return self.opt_ml / OUTPUT_FOLDER / output
        if output == "model":
            archive = self.opt_ml / "archive"
            archive.mkdir(exist_ok=True)
            with tarfile.open(archive / "model.tar.gz", "w:gz", compresslevel=1) as tar:
                for path in sorted((self.opt_ml / "model").iterdir()):
                    tar.add(path, arcname=path.name)
            return archive
        return self.opt_ml / "output" / "data"
