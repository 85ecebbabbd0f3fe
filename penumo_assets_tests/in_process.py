"""Jobs inside this process, for tests that are about what jobs make and not about processes.

The folders, the environment, the log and the outputs are those of the local runner, whose code lays them out and
collects them. A program whose workers are processes keeps them; only its own start is saved, and what it imports.
"""

import json
import logging
import os
import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from penumo_assets.jobs.contract import write_atomic
from penumo_assets.resources.compute.local.job import LocalJob
from penumo_assets.resources.compute.local.runner import LocalJobRunner
from penumo_assets.resources.compute.spec import JobSpec
from penumo_assets.resources.profile import embedded_resources


class InProcessJob(LocalJob):
    """A local job that has ended when it has been started."""

    def _start(self, claim: int, before: LocalJob | None) -> None:
        self._lay_out(before)
        code = 0
        with _as_a_program(self.folder / "log.txt", self.opt_ml, self._environment(), self.spec):
            try:
                runpy.run_module(f"penumo_assets.jobs.{self.spec.program}", run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = int(end.code or 0)
        self.remove_inputs()
        write_atomic(self.folder / "exit.json", json.dumps({"code": code, "stopped": False}).encode())


class InProcessJobRunner(LocalJobRunner):
    """A local runner without supervisor: nothing of a job lives on when this process ends."""

    def _job(self, spec: JobSpec, attempt: int) -> LocalJob:
        return InProcessJob(self.storage.store, Path(self.scratch), spec, spec.job_name(self.job_name_prefix, attempt))


def resources_in_process() -> dict[str, Any]:
    """The embedded profile's resources, but jobs run in this process."""
    resources = embedded_resources()
    jobs = InProcessJobRunner(storage=resources["storage"], scratch=resources["jobs"].scratch)
    return resources | {"jobs": jobs}


@contextmanager
def _as_a_program(log: Path, folder: Path, environment: dict[str, str], spec: JobSpec) -> Iterator[None]:
    """What a process of its own would have; all of it is as before at the end."""
    import mlflow
    import torch
    from mlflow.tracking import fluent
    from mlflow.utils.thread_utils import ThreadLocalVariable

    threads, terminated = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    random, root = torch.get_rng_state(), logging.getLogger()
    with ExitStack() as stack:
        output = stack.enter_context(log.open("a", buffering=1, encoding="utf-8"))
        lines = logging.StreamHandler(output)
        lines.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        stack.enter_context(patch.multiple(root, handlers=[lines], level=logging.INFO))
        stack.enter_context(patch.dict(os.environ, environment, clear=True))
        stack.enter_context(patch.object(sys, "argv", [spec.program, *spec.arguments]))
        stack.enter_context(patch.object(fluent, "_active_run_stack", ThreadLocalVariable(list)))
        for redirect in (redirect_stdout, redirect_stderr):
            stack.enter_context(redirect(output))
        stack.enter_context(chdir(folder))
        try:
            yield
        finally:
            if mlflow.active_run():
                mlflow.end_run("FAILED")
            mlflow.set_tracking_uri("")
            torch.set_num_threads(threads)
            torch.set_rng_state(random)
            signal.signal(signal.SIGTERM, terminated)
