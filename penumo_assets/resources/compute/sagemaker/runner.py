"""Run jobs on Amazon SageMaker: Processing jobs for data, Training jobs for models, tuning jobs for searches.

Only the AWS profile imports this module. The job's name is its work, so the service itself remembers what has been
started: describe first, then attach, reuse, or create the next attempt. Jobs are never listed to find one.
"""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

from dagster import AssetExecutionContext, DagsterExecutionInterruptedError, MetadataValue
from pydantic import Field, PrivateAttr

from penumo_assets.configs.search import SearchConfig, SearchSpace
from penumo_assets.jobs.contract import RESULT_NAME
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.sagemaker.inputs import input_prefix
from penumo_assets.resources.compute.sagemaker.job import TRAINING_OUTPUT, SageMakerJob
from penumo_assets.resources.compute.sagemaker.logs import JobLog
from penumo_assets.resources.compute.sagemaker.outcome import TRANSIENT, Description, console_urls, transient_cause
from penumo_assets.resources.compute.sagemaker.request import check_spec, checkpoint_prefix, kept_prefix
from penumo_assets.resources.compute.sagemaker.service import Denied, QuotaFull, Service
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.sagemaker.tuning import TuningJob, check_search
from penumo_assets.resources.compute.search import Trial
from penumo_assets.resources.compute.spec import JobFailed, JobResult, JobSpec

LONGEST_PAUSE_SECONDS = 600.0
UNSEEN_SECONDS = 300.0
LOG_PATIENCE_SECONDS = 15.0
STOPPED_LOG_PATIENCE_SECONDS = 3.0  # a log that was cut off has no end to wait for
_INTERRUPTIONS = (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit)
T = TypeVar("T")
J = TypeVar("J", SageMakerJob, TuningJob)


class SageMakerJobRunner(JobRunner):
    """Jobs on SageMaker, under the same contract as the local runner.

    A job that failed for lack of capacity or by a fault of the service gets a new attempt after a pause; a program
    that failed would fail again.
    """

    settings: SageMakerSettings = Field(default_factory=SageMakerSettings)

    _service: Service | None = PrivateAttr(default=None)

    @property
    def service(self) -> Service:
        """Raises JobFailed if a setting is missing."""
        if self._service is None:
            self._service = Service(self.settings, self.storage)  # type: ignore[arg-type]  # a Storage, once it is bound
        return self._service

    def setup_for_execution(self, context: Any) -> None:
        """Refuse to run, before any asset reads anything, if a setting is missing."""
        _ = self.service

    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        spec = self._with_image(spec)
        check_spec(self.settings, spec)
        logs: dict[str, JobLog] = {}
        return self._retried(context, lambda: self._run_attempt(context, spec, logs))

    def tune(
        self, context: AssetExecutionContext, spec: JobSpec, space: SearchSpace, config: SearchConfig
    ) -> list[Trial]:
        spec = self._with_image(spec)
        check_search(self.settings, spec, space)
        return self._retried(context, lambda: self._search_attempt(context, spec, space, config))

    def discard(self, job_name: str) -> None:
        # The result goes first: without it the job does not count as finished, so nobody reuses half of it.
        results = (RESULT_NAME, TRAINING_OUTPUT)
        outputs = (f"jobs/{job_name}", kept_prefix(job_name))
        listed = [item.key for prefix in outputs for item in self.store.list_objects(prefix)]
        self.store.delete([key for key in listed if key.rsplit("/", 1)[-1] in results])
        for prefix in (*outputs, input_prefix(job_name), checkpoint_prefix(job_name)):
            self.store.delete_folder(prefix)

    def _with_image(self, spec: JobSpec) -> JobSpec:
        return replace(spec, image=self.service.image_uri(spec))

    def _retried(self, context: AssetExecutionContext, attempt: Callable[[], T]) -> T:
        """What ``attempt`` returns, repeated after pauses while what keeps it from succeeding may pass.

        A full quota is waited for by the clock, because jobs take hours; all else that may pass, by the count.
        """
        retry, waits, most = 0, 0, self.settings.max_retries
        until = time.monotonic() + self.settings.quota_wait_hours * 3600
        while True:
            try:
                return attempt()
            except QuotaFull as failed:
                if time.monotonic() >= until:
                    raise
                pause, waits = self._pause(waits), waits + 1
                context.log.warning(f"{failed}; asking again in {pause:.0f} s, for {self.settings.quota_wait_hours} h")
            except JobFailed as failed:
                if not failed.transient or retry == most:
                    raise
                pause, retry = self._pause(retry), retry + 1
                context.log.warning(f"{failed}; new attempt in {pause:.0f} s ({retry} of {most})")
            time.sleep(pause)

    def _pause(self, times: int) -> float:
        """Seconds to wait after a failure that was preceded by ``times`` others."""
        return min(self.settings.retry_seconds * 2 ** min(times, 16), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)

    def _described(self, context: AssetExecutionContext, job: SageMakerJob | TuningJob) -> Description | None:
        """How a job stands, asked again while the service does not answer; every good answer starts a new count."""
        for times in count():
            try:
                return job.describe()
            except JobFailed as failed:
                if not failed.transient or times == self.settings.max_retries:
                    raise
                pause = self._pause(times)
                context.log.warning(f"{failed}; asking again in {pause:.0f} s")
                time.sleep(pause)
        raise AssertionError("a count has no end")

    def _run_attempt(self, context: AssetExecutionContext, spec: JobSpec, logs: dict[str, JobLog]) -> JobResult:
        """Follow one attempt to its end; ``logs`` remembers by job what has been passed on, should it come again."""
        started = time.monotonic()
        job, description = self._find_or_create(context, spec, lambda n: SageMakerJob(self.service, spec, n))
        reused = description is not None
        if job.name not in logs:
            hosts = self.settings.instance_count(spec)
            logs[job.name] = JobLog(self.service.client("logs"), job.log_group, job.name, context.log.info, hosts)
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
            f"job {job.name} {description.sentence(cause, f'PENUMO_{spec.kind.upper()}_INSTANCE_TYPE')}",
            log_tail=tail,
            metadata=metadata,
            transient=cause in TRANSIENT,
        )

    def _search_attempt(
        self, context: AssetExecutionContext, spec: JobSpec, space: SearchSpace, config: SearchConfig
    ) -> list[Trial]:
        """Follow one tuning job to its end; JobFailed if it was stopped, or if no trial of it says anything."""
        job, description = self._find_or_create(
            context, spec, lambda n: TuningJob(self.service, spec, space, config, n)
        )
        if description is None or description.running:
            description = self._wait(context, job)
        if description.status == "Stopped":
            raise JobFailed(f"search {job.name} was stopped")
        trials = job.trials()
        for trial in trials:
            context.log.info(trial.sentence(config.trials))
        reasons = [trial.reason for trial in trials] or [description.reason]
        if not any(trial.value is not None for trial in trials) and (
            not trials or all(transient_cause(text) for text in reasons)
        ):
            transient = any(transient_cause(text) for text in reasons)
            raise JobFailed(f"search {job.name} failed: {'; '.join(sorted(set(reasons)))}", transient=transient)
        job.discard()
        return trials

    def _find_or_create(
        self, context: AssetExecutionContext, spec: JobSpec, attempt_at: Callable[[int], J]
    ) -> tuple[J, Description | None]:
        """The attempt that runs or has a result, with its description; else a new one, without."""
        attempt = 1
        while True:
            job = attempt_at(attempt)
            found = self._described(context, job)
            if found is None:
                if self._create(context, spec, job):
                    return job, None
                self._sleep()  # another process was faster: its job is about to be seen
            elif found.status == "InProgress":
                context.log.info(f"Attached to {job.noun} {job.name}, which is still running")
                return job, found
            elif found.status == "Completed" and job.has_result():
                context.log.info(f"{job.noun.capitalize()} {job.name} has finished before: its result is used")
                return job, found
            else:
                job.remove_inputs()
                attempt += 1

    def _create(self, context: AssetExecutionContext, spec: JobSpec, job: SageMakerJob | TuningJob) -> bool:
        try:
            created = job.create(_tags(context, spec))
        except _INTERRUPTIONS:
            self._stop(context, job)  # the answer may have been under way
            raise
        if created:
            context.log.info(f"Started {job.noun} {job.name}: {self._urls(job)[0]}")
        return created

    def _wait(
        self, context: AssetExecutionContext, job: SageMakerJob | TuningJob, log: JobLog | None = None
    ) -> Description:
        """Follow the job and its log to the end; if the run is cancelled, stop the job."""
        detail = ""
        try:
            description: Description | None = self._first_seen(context, job)
            while True:
                if description is None:
                    raise JobFailed(f"{job.noun} {job.name} has disappeared")
                if description.detail != detail:
                    detail = description.detail
                    context.log.info(f"{job.noun.capitalize()} {job.name}: {detail}")
                if not description.running:
                    break
                if log:
                    log.read()
                self._sleep()
                description = self._described(context, job)
            if log and description.seconds is not None:
                log.drain(STOPPED_LOG_PATIENCE_SECONDS if description.status == "Stopped" else LOG_PATIENCE_SECONDS)
            return description
        except _INTERRUPTIONS:
            self._stop(context, job)
            raise

    def _first_seen(self, context: AssetExecutionContext, job: SageMakerJob | TuningJob) -> Description | None:
        """The first description of a job; one just created may be unknown for a while. None if it stays unknown."""
        until = time.monotonic() + UNSEEN_SECONDS
        while True:
            try:
                if (description := self._described(context, job)) or time.monotonic() >= until:
                    return description
            except Denied:
                if time.monotonic() >= until:
                    raise
            self._sleep()

    def _sleep(self) -> None:
        time.sleep(self.settings.poll_seconds * random.uniform(0.85, 1.25))

    def _stop(self, context: AssetExecutionContext, job: SageMakerJob | TuningJob) -> None:
        context.log.info(f"Stopping {job.noun} {job.name}")
        job.stop()
        job.remove_inputs()

    def _urls(self, job: SageMakerJob | TuningJob) -> tuple[str, str]:
        return console_urls(self.service.region, job.kind, job.log_group, job.name)

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
