"""Follow a hyperparameter tuning job to its end, under the same promises as any job.

Its name is its work: describe first, then attach, reuse, or create the next attempt. Cancelling the run stops it.
"""

import random
import time
from collections.abc import Mapping
from typing import Any

from dagster import AssetExecutionContext, DagsterExecutionInterruptedError

from penumo_assets.configs.search import OBJECTIVE, SearchConfig, SearchSpace
from penumo_assets.resources.compute.sagemaker.outcome import RUNNING, console_urls, passing_cause, plain
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.sagemaker.tuning import TuningJob
from penumo_assets.resources.compute.search import Trial
from penumo_assets.resources.compute.spec import JobFailed, JobSpec

INTERRUPTIONS = (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit)
_TRIALS_LOG_GROUP = "/aws/sagemaker/TrainingJobs"


class Search:
    """One call of the runner's ``tune``; `run` may be repeated after a failure that passes."""

    def __init__(
        self,
        settings: SageMakerSettings,
        context: AssetExecutionContext,
        spec: JobSpec,
        space: SearchSpace,
        config: SearchConfig,
        tags: Mapping[str, str],
    ) -> None:
        self._settings, self._context, self._tags = settings, context, tags
        self._spec, self._space, self._config = spec, space, config

    def run(self) -> list[Trial]:
        """All trials; raises JobFailed if the search was stopped, or ended without any that tells something."""
        job, answer = self._find_or_create()
        if answer is None or answer["HyperParameterTuningJobStatus"] in RUNNING:
            answer = self._wait(job)
        status, reason = answer["HyperParameterTuningJobStatus"], plain(answer.get("FailureReason", ""))
        if status == "Stopped":
            raise JobFailed(f"search {job.name} was stopped")
        trials = job.trials()
        self._tell(trials)
        reasons = [trial.reason for trial in trials] or [reason]
        if not any(trial.value is not None for trial in trials) and (
            not trials or all(passing_cause(text) for text in reasons)
        ):
            passing = any(passing_cause(text) for text in reasons)
            raise JobFailed(f"search {job.name} failed: {'; '.join(sorted(set(reasons)))}", passing=passing)
        job.discard_outputs()
        return trials

    def _find_or_create(self) -> tuple[TuningJob, dict[str, Any] | None]:
        """The attempt that runs or has completed, with its description; else a new one, without."""
        attempt, log = 1, self._context.log
        while True:
            job = TuningJob(self._settings, self._spec, self._space, self._config, attempt)
            found = job.describe()
            status = found and found["HyperParameterTuningJobStatus"]
            if found is None:
                if self._create(job):
                    return job, None
                time.sleep(self._settings.poll_seconds)  # another process was faster: its job is about to be seen
            elif status == "InProgress":
                log.info(f"Attached to search {job.name}, which is still running")
                return job, found
            elif status == "Completed":
                log.info(f"Search {job.name} has finished before: its trials are used")
                return job, found
            else:
                attempt += 1

    def _create(self, job: TuningJob) -> bool:
        try:
            created = job.create(self._tags)
        except INTERRUPTIONS:
            self._stop(job)  # the answer may have been under way
            raise
        if created:
            page, _ = console_urls(self._settings.region_name, "tuning", _TRIALS_LOG_GROUP, job.name)
            self._context.log.info(f"Started search {job.name}: {page}")
        return created

    def _wait(self, job: TuningJob) -> dict[str, Any]:
        told = ""
        try:
            while True:
                answer = job.describe()
                if answer is None:
                    raise JobFailed(f"search {job.name} has disappeared")
                counts = answer["TrainingJobStatusCounters"]
                failed = counts.get("NonRetryableError", 0)
                progress = f"{counts.get('Completed', 0)} of {self._config.trials} trainings completed, {failed} failed"
                if progress != told:
                    told = progress
                    self._context.log.info(f"Search {job.name}: {progress}")
                if answer["HyperParameterTuningJobStatus"] not in RUNNING:
                    return answer
                time.sleep(self._settings.poll_seconds * random.uniform(0.9, 1.1))
        except INTERRUPTIONS:
            self._stop(job)
            raise

    def _stop(self, job: TuningJob) -> None:
        if self._settings.forward_termination:
            self._context.log.info(f"Stopping search {job.name}")
            job.stop()
        else:
            self._context.log.info(f"Search {job.name} goes on; launching again attaches to it")

    def _tell(self, trials: list[Trial]) -> None:
        for trial in trials:
            found = trial.reason if trial.value is None else f"{OBJECTIVE} {trial.value:.4f}"
            text = f"trial {trial.number + 1} of {self._config.trials} ({trial.job_name}): {found}"
            self._context.log.info(f"{text} with {dict(trial.hyperparameters)}")
