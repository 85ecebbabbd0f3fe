"""An installation whose stages are launched as processes of their own, killed, and put back to where they began."""

import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from dagster import DagsterInstance

from penumo_assets.resources.compute.local.claims import ROOT_VARIABLE
from penumo_assets.resources.compute.local.runner import LocalJobRunner
from penumo_assets.resources.profile import embedded_resources
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.house import House

_WRITTEN_IN_PLACE = (".db", ".db-wal", ".db-shm", ".db-journal")
VICTIMS = ("runner", "supervisor", "program", "worker", "all")


class Installation:
    """One root at one place, snapshots of it beside, and launches that are forks of this process.

    A fork starts at once, because everything is imported already. So this process must have no threads.
    """

    def __init__(self, folder: Path, notes: Path) -> None:
        """``notes`` is where launches and the witness write what must not fail when ``folder`` is full."""
        self.folder, self.root, self.notes = folder, folder / "root", notes
        notes.mkdir(parents=True, exist_ok=True)
        self.store = FileStore(self.root)
        self.database = self.root / "mlflow" / "mlflow.db"
        self.temporary = folder / "tmp"
        for name in [name for name in os.environ if name.startswith(("PENUMO_", "MLFLOW_", "AWS_", "DAGSTER_"))]:
            del os.environ[name]
        os.environ |= {"PENUMO_ROOT": str(self.root), "PENUMO_DEID_KEY": "a key for phantoms only"}
        os.environ |= {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        self.root.mkdir(parents=True)
        self.temporary.mkdir()

    @contextmanager
    def house(self) -> Iterator[House]:
        resources = embedded_resources()
        scratch = str(self.root / "scratch")
        resources["jobs"] = LocalJobRunner(storage=resources["storage"], scratch=scratch, poll_seconds=0.05)
        with DagsterInstance.ephemeral() as instance:
            yield House(instance, resources, self.folder)

    def save(self, name: str) -> None:
        _copy(self.root, self.folder / "snapshots" / name)

    def restore(self, name: str) -> None:
        for leftover in (self.root, self.temporary):
            shutil.rmtree(leftover)
        self.temporary.mkdir()
        _copy(self.folder / "snapshots" / name, self.root)

    def launch(self, run: Callable[[House], None]) -> int:
        """Run it in a new process, as somebody would who launches the asset; its id."""
        process = os.fork()
        if process == 0:
            status = 1
            try:
                log = os.open(self.notes / "launch.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                with self.house() as house:
                    run(house)
                status = 0
            except BaseException as error:
                traceback.print_exc()
                (self.notes / "said").write_text(f"{type(error).__name__}: {error}")
            finally:
                os._exit(status)
        return process

    def undisturbed(self, run: Callable[[House], None]) -> float:
        """Seconds of a launch that must succeed."""
        started = time.monotonic()
        _, status = os.waitpid(self.launch(run), 0)
        if status != 0:
            raise RuntimeError(f"an undisturbed launch failed: see {self.notes / 'launch.log'}")
        return time.monotonic() - started

    def said(self) -> str:
        """What the launch that failed last said to the person who launched it."""
        return (self.notes / "said").read_text()

    def jobs(self) -> dict[str, list[psutil.Process]]:
        """The living processes of this installation's jobs by what they are."""
        found: dict[str, list[psutil.Process]] = {"supervisor": [], "program": [], "worker": []}
        for process in psutil.process_iter():
            try:
                if not process.environ().get(ROOT_VARIABLE, "").startswith(f"{self.root}/"):
                    continue
                command = process.cmdline()
            except psutil.Error:
                continue
            if any(word.endswith("supervisor.py") for word in command):
                found["supervisor"].append(process)
            elif "-m" in command:
                found["program"].append(process)
            else:
                found["worker"].append(process)
        return found

    def kill(self, victim: str, launched: int) -> bool:
        """SIGKILL the victim; False if there is none just now."""
        if victim == "runner":
            os.kill(launched, signal.SIGKILL)
            return True
        jobs = self.jobs()
        chosen = (
            jobs.get(victim, [])[-1:] if victim != "all" else [process for kind in jobs.values() for process in kind]
        )
        for process in chosen:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if chosen and victim == "all":
            os.kill(launched, signal.SIGKILL)
        return bool(chosen)

    def end_jobs(self, grace: float = 5.0) -> list[str]:
        """Kill what still runs of any job after some seconds in which it may end by itself, and tell what it was."""
        end = time.monotonic() + grace
        while (jobs := self.jobs()) and any(jobs.values()) and time.monotonic() < end:
            time.sleep(0.1)
        left = [(kind, process) for kind, processes in jobs.items() for process in processes]
        for _, process in left:
            process.kill()
        psutil.wait_procs([process for _, process in left], timeout=10)
        return [kind for kind, _ in left]

    def hidden(self) -> list[str]:
        """Temporary files that processes left behind: no listing shows them, but they take space."""
        skipped = (self.root / "scratch", self.root / "mlflow")
        found = [
            path for path in self.root.rglob("*.tmp") if not any(path.is_relative_to(folder) for folder in skipped)
        ]
        return [path.relative_to(self.root).as_posix() for path in found]

    def scratch(self) -> list[str]:
        folder = self.root / "scratch"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _copy(source: Path, target: Path) -> None:
    """Links, since objects are only ever replaced; copies of what is written in place."""
    shutil.copytree(source, target, copy_function=_link_or_copy, symlinks=True)


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(_WRITTEN_IN_PLACE):
        shutil.copy2(source, target)
    else:
        os.link(source, target)
