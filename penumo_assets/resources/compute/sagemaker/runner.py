"""Run jobs on Amazon SageMaker: Processing jobs for data, Training jobs for models, tuning jobs for searches.

Only the AWS profile imports this module. The job's name is its work, so the service itself remembers what has been
started: describe first, then attach, reuse, or create the next attempt. Jobs are never listed to find one.
"""

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from dagster import AssetExecutionContext, MetadataValue

from penumo_assets.configs.search import SearchConfig, SearchSpace
from penumo_assets.jobs.contract import RESULT_NAME
from penumo_assets.resources.compute.sagemaker.job import TRAINING_OUTPUT, SageMakerJob
from penumo_assets.resources.compute.sagemaker.logs import JobLog
from penumo_assets.resources.compute.sagemaker.outcome import PASSING, Description, console_urls
from penumo_assets.resources.compute.sagemaker.request import check_spec, checkpoint_prefix, input_prefix
from penumo_assets.resources.compute.sagemaker.search import INTERRUPTIONS, Search
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.sagemaker.tuning import check_search
from penumo_assets.resources.compute.search import Trial, Tuner
from penumo_assets.resources.compute.spec import JobFailed, JobResult, JobSpec

LONGEST_PAUSE_SECONDS = 600.0
LOG_PATIENCE_SECONDS = 15.0
STOPPED_LOG_PATIENCE_SECONDS = 3.0  # a log that was cut off has no end to wait for
T = TypeVar("T")


class SageMakerJobRunner(SageMakerSettings, Tuner):
    """Jobs on SageMaker, under the same contract as the local runner.

    A job that failed for lack of capacity or by a fault of the service gets a new attempt after a pause; a program
    that failed would fail again.
    """

    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        self.require_settings()
        check_spec(self, spec)
        logs: dict[str, JobLog] = {}
        return self._retried(context, lambda: self._run_attempt(context, spec, logs))

    def tune(
        self, context: AssetExecutionContext, spec: JobSpec, space: SearchSpace, config: SearchConfig
    ) -> list[Trial]:
        self.require_settings()
        check_search(self, spec, space)
        return self._retried(context, Search(self, context, spec, space, config, _tags(context, spec)).run)

    def _retried(self, context: AssetExecutionContext, attempt: Callable[[], T]) -> T:
        """What ``attempt`` returns, repeated after pauses while what keeps it from succeeding may pass."""
        retry = 0
        while True:
            try:
                return attempt()
            except JobFailed as failed:
                if not failed.passing or retry == self.max_retries:
                    raise
                pause = min(self.retry_seconds * 2**retry, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
                retry += 1
                context.log.warning(f"{failed}; new attempt in {pause:.0f} s ({retry} of {self.max_retries})")
                time.sleep(pause)

    def discard_outputs(self, result: JobResult) -> None:
        # The result goes first: without it the job does not count as finished, so nobody reuses half of it.
        names = [TRAINING_OUTPUT, *(f"{output}/{RESULT_NAME}" for output in result.outputs)]
        store = self.store
        store.delete([f"{result.output_prefix}/{name}" for name in names])
        for prefix in (f"jobs/{result.job_name}", input_prefix(result.job_name), checkpoint_prefix(result.job_name)):
            store.delete_folder(prefix)

    def _run_attempt(self, context: AssetExecutionContext, spec: JobSpec, logs: dict[str, JobLog]) -> JobResult:
        """Follow one attempt to its end; ``logs`` remembers by job what has been passed on, should it come again."""
        started = time.monotonic()
        job, description = self._find_or_create(context, spec)
        reused = description is not None
        if job.name not in logs:
            hosts = self.instance_count(spec)
            logs[job.name] = JobLog(self.client("logs"), job.log_group, job.name, context.log.info, hosts)
        log = logs[job.name]
        if description is None or description.running:
            description = self._wait(context, job, log)
        metadata = self._metadata(job, description, reused)
        if description.status == "Completed":
            values, outputs = job.collect()
            metadata["job_seconds"] = round(time.monotonic() - started, 1)
            return JobResult(job.name, values, job.output_prefix, outputs, metadata)
        job.remove_inputs()
        tail = "\n".join(log.tail)
        cause = description.cause(tail)
        raise JobFailed(
            f"job {job.name} {description.sentence(cause, self._instance_variable(spec))}",
            log_tail=tail,
            metadata=metadata,
            passing=cause in PASSING,
        )

    def _find_or_create(self, context: AssetExecutionContext, spec: JobSpec) -> tuple[SageMakerJob, Description | None]:
        """The attempt that runs or has a result, with its description; else a new one, without."""
        attempt = 1
        while True:
            job = SageMakerJob(self, spec, attempt)
            found = job.describe()
            if found is None:
                if self._create(context, job):
                    return job, None
                time.sleep(self.poll_seconds)  # another process was faster: its job is about to be seen
            elif found.status == "InProgress":
                context.log.info(f"Attached to job {job.name}, which is still running")
                return job, found
            elif found.status == "Completed" and job.has_result():
                context.log.info(f"Job {job.name} has finished before: its result is used")
                return job, found
            else:
                job.remove_inputs()
                attempt += 1

    def _create(self, context: AssetExecutionContext, job: SageMakerJob) -> bool:
        try:
            created = job.create(_tags(context, job.spec))
        except INTERRUPTIONS:
            self._stop(context, job)  # the answer may have been under way
            raise
        if created:
            context.log.info(f"Started job {job.name}: {self._urls(job)[0]}")
        return created

    def _wait(self, context: AssetExecutionContext, job: SageMakerJob, log: JobLog) -> Description:
        """Follow the job and its log to the end; if the run is cancelled, stop the job."""
        detail, next_reading = "", 0.0
        try:
            while True:
                description = job.describe()
                if description is None:
                    raise JobFailed(f"job {job.name} has disappeared")
                if description.detail != detail:
                    detail = description.detail
                    context.log.info(f"Job {job.name}: {detail}")
                if not description.running:
                    break
                if time.monotonic() >= next_reading:
                    log.read()
                    next_reading = time.monotonic() + self.log_poll_seconds
                time.sleep(self.poll_seconds * random.uniform(0.9, 1.1))
            if description.seconds is not None:
                log.drain(STOPPED_LOG_PATIENCE_SECONDS if description.status == "Stopped" else LOG_PATIENCE_SECONDS)
            return description
        except INTERRUPTIONS:
            self._stop(context, job)
            raise

    def _stop(self, context: AssetExecutionContext, job: SageMakerJob) -> None:
        if self.forward_termination:
            context.log.info(f"Stopping job {job.name}")
            job.stop()
            job.remove_inputs()
        else:
            context.log.info(f"Job {job.name} goes on; launching again attaches to it")

    def _instance_variable(self, spec: JobSpec) -> str:
        """Where a larger instance is asked for."""
        if spec.program in self.instance_types:
            return f"instance_types[{spec.program!r}]"
        return f"PENUMO_{spec.kind.upper()}_INSTANCE_TYPE"

    def _urls(self, job: SageMakerJob) -> tuple[str, str]:
        return console_urls(self.region_name, job.spec.kind, job.log_group, job.name)

    def _metadata(self, job: SageMakerJob, description: Description, reused: bool) -> dict[str, Any]:
        page, log = self._urls(job)
        metadata: dict[str, Any] = {
            "job_name": job.name,
            "job_url": MetadataValue.url(page),
            "job_log_url": MetadataValue.url(log),
            "job_status": description.status,
            "job_reused": reused,
            "job_attempt": job.attempt,
            "instance": f"{description.instance_count} x {description.instance_type}",
        }
        if description.billable_seconds is not None:
            metadata |= {"billable_seconds": description.billable_seconds, "instance_seconds": description.seconds}
        return metadata


def _tags(context: AssetExecutionContext, spec: JobSpec) -> dict[str, str]:
    """What leads from the job back to the run that asked for it first."""
    tags = {"dagster/run_id": context.run.run_id, "penumo/asset": spec.asset}
    return tags | ({"penumo/partition": spec.partition} if spec.partition else {})
