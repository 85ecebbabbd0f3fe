"""Run the prepare job's own program as the runners do, and measure it: time, processor time, peak memory."""

import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

PROGRAM = "penumo_assets.jobs.prepare"
_REPOSITORY = Path(__file__).parents[1]
_KEY = "a key for benchmarks only"


@dataclass(frozen=True)
class JobRun:
    """One run of the job: wall-clock and processor seconds of all its processes, stages, peak memory in MiB."""

    images: int
    seconds: float
    cpu: float
    stage_seconds: dict[str, float]
    peak_mib: float


def run_job(root: Path, workers: int, *, sample_memory: bool = False) -> JobRun:
    """Run the program on a prepared layout. No other child of this process may end meanwhile.

    Raises
    ------
    RuntimeError
        If it fails, or rejects an image.
    """
    _adopt_orphans()
    environment = os.environ | {"PENUMO_OPT_ML": str(root), "PENUMO_DEID_KEY": _KEY, "PYTHONPATH": str(_REPOSITORY)}
    before, started = _children_cpu(), time.perf_counter()
    with open(root / "log", "wb") as log:
        command = [sys.executable, "-m", PROGRAM, "--workers", str(workers)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        peak = _watch(process) if sample_memory else 0.0
        code = process.wait()
    seconds = time.perf_counter() - started
    _wait_for_orphans(process.pid)
    result = root / "processing" / "output" / "rows" / "result.json"
    if code or not result.exists():
        raise RuntimeError(f"the job failed: {(root / 'log').read_text()[-2000:]}")
    values = json.loads(result.read_text())["values"]
    if values["rejected"]:
        raise RuntimeError(f"the job rejected {values['rejected']} of {values['images']} images")
    return JobRun(values["images"], seconds, _children_cpu() - before, values["stage_seconds"], peak)


def clear_outputs(root: Path) -> None:
    shutil.rmtree(root / "processing" / "output", ignore_errors=True)


def _watch(process: subprocess.Popen[bytes]) -> float:
    """Peak of the proportional set size, summed over the process and its descendants, in MiB."""
    peak, done = 0, threading.Event()
    root = psutil.Process(process.pid)

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.05):
            total = 0
            try:
                for member in [root, *root.children(recursive=True)]:
                    total += member.memory_full_info().pss
            except psutil.Error:  # one of them has just ended: this sample is no total
                continue
            peak = max(peak, total)

    thread = threading.Thread(target=sample)
    thread.start()
    process.wait()
    done.set()
    thread.join()
    return peak / 2**20


def _adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends first, so that their processor time is counted."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _wait_for_orphans(group: int) -> None:
    try:
        while True:
            os.waitpid(-group, 0)
    except ChildProcessError:
        return


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
