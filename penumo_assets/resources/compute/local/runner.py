"""Run jobs as subprocesses that see SageMaker's container contract and nothing else of this machine's settings."""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dagster import AssetExecutionContext, DagsterExecutionInterruptedError
from pydantic import Field, PrivateAttr

from penumo_assets.jobs.contract import RESULT_NAME
from penumo_assets.resources.compute.local import claims
from penumo_assets.resources.compute.local.job import LocalJob
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobResult, JobSpec
from penumo_assets.resources.storage.file_store import folder_lock


class LocalJobRunner(JobRunner):
    """Jobs as local subprocesses in a scratch folder with the layout of `/opt/ml`.

    Every job runs under a supervisor in its own session: if the orchestrator dies, the job goes on and the
    next launch attaches to it; if the run is cancelled, the whole process group is stopped. A job runs as long as
    somebody holds the claim on its folder (`claims`).
    """

    scratch: str = Field(description="Folder for running jobs; on the same disk as the storage root if that is local.")
    job_name_prefix: str = Field(default="penumo", description="First word of every job name.")
    poll_seconds: float = Field(default=0.2, gt=0, description="How often a running job is looked at.")

    # Finished jobs whose outputs this process still reads: shares in their folders.
    _in_use: dict[str, int] = PrivateAttr(default_factory=dict)

    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        started, scratch = time.monotonic(), Path(self.scratch)
        spec = replace(spec, image=f"python {platform.python_version()}")
        attempt, before, followed, reused = 1, None, False, True
        job = self._job(spec, attempt)
        while True:
            state = job.describe()
            if state == "absent":
                if job.create(before):
                    context.log.info(f"Started job {job.name}")
                    followed, reused = True, False
                else:
                    time.sleep(self.poll_seconds)
            elif state == "running":
                if not followed:
                    context.log.info(f"Attached to job {job.name}, which is still running")
                followed = True
                self._wait(context, job)
            elif state == "failed" and not followed:
                attempt, before = attempt + 1, job
                job = self._job(spec, attempt)
            else:
                with folder_lock(scratch):  # another run may be attached to the same job
                    if job.describe() not in (state, "completed"):
                        continue  # that one has used it and cleared it away
                    result, outputs = job.result(), job.publish()
                    self._use(job)
                break
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

    def _job(self, spec: JobSpec, attempt: int) -> LocalJob:
        return LocalJob(self.store, Path(self.scratch), spec, spec.job_name(self.job_name_prefix, attempt))

    def _wait(self, context: AssetExecutionContext, job: LocalJob) -> None:
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

    def _use(self, job: LocalJob) -> None:
        self._let_go(job.name)
        handle = claims.use(job.folder)
        if handle is not None:
            self._in_use[job.name] = handle

    def _let_go(self, name: str) -> None:
        if name in self._in_use:
            os.close(self._in_use.pop(name))

    def discard(self, job_name: str) -> None:
        """Remove the job, and whatever earlier jobs for the same work have left: killed runs never came to this."""
        scratch = Path(self.scratch)
        with folder_lock(scratch):
            self._let_go(job_name)
            if claims.is_used(scratch / job_name):
                return  # another run, attached to the same job, still reads them: it will come to this
            work = claims.work_of(scratch / job_name)
            self._discard(job_name)
            for folder in _unused(scratch):
                if work is not None and claims.work_of(folder) == work:
                    self._discard(folder.name)

    def _discard(self, name: str) -> None:
        # The result goes first: without it the job does not count as finished, so nobody reuses half of it.
        store = self.store
        store.delete([f"jobs/{name}/output/{RESULT_NAME}"])
        store.delete_folder(f"jobs/{name}")
        shutil.rmtree(Path(self.scratch) / name, ignore_errors=True)


def _unused(scratch: Path) -> Iterator[Path]:
    for folder in list(scratch.iterdir()):
        if folder.is_dir() and not claims.is_held(folder) and not claims.is_used(folder):
            yield folder
