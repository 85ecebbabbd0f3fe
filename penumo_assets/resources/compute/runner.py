"""What every job runner does: run a spec, discard what a job made, and search hyperparameters."""

import hashlib
import json
from abc import abstractmethod
from dataclasses import asdict

from dagster import AssetExecutionContext, ConfigurableResource, ResourceDependency

from penumo_assets.configs.search import OBJECTIVE, SearchConfig, SearchSpace
from penumo_assets.resources.compute.search import Trial, optuna_trials, with_hyperparameters
from penumo_assets.resources.compute.spec import JobFailed, JobResult, JobSpec
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.storage.root import Storage


class JobRunner(ConfigurableResource):
    """Runs job specs to their end: attach to a running one, reuse a finished one, else start the next attempt."""

    storage: ResourceDependency[Storage]

    @property
    def store(self) -> ObjectStore:
        return self.storage.store

    @abstractmethod
    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        """Run ``spec`` and return its result.

        Raises
        ------
        JobFailed
            If the program failed: running it again would fail again.
        """

    @abstractmethod
    def discard(self, job_name: str) -> None:
        """Remove a job's outputs once they are published under their own keys. Safe to repeat."""

    def tune(
        self, context: AssetExecutionContext, spec: JobSpec, space: SearchSpace, config: SearchConfig
    ) -> list[Trial]:
        """Run ``config.trials`` trainings like ``spec`` with hyperparameters from ``space``; all of them, in order.

        Optuna chooses, one training after another. Every finished trial is written down, so that an interrupted
        search repeats none.

        Raises
        ------
        JobFailed
            If the search itself cannot go on. A training that fails is a trial without a value.
        """
        identity = json.dumps([spec.digest(), space.model_dump(), config.seed], sort_keys=True)
        key = f"models/{spec.partition}/search/{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
        try:
            done = [Trial(**values) for values in self.store.read_json(key)]
        except ObjectMissing:
            done = []

        def train(number: int, values: dict[str, str]) -> Trial:
            try:
                result = self.run(context, with_hyperparameters(spec, values))
            except JobFailed as failed:
                return Trial(number, values, None, reason=str(failed))
            self.discard(result.job_name)
            return Trial(number, values, float(result.values[OBJECTIVE]), result.job_name)

        trials: list[Trial] = []
        for trial in optuna_trials(space, config, done, train):
            trials.append(trial)
            self.store.write_json(key, [asdict(item) for item in trials])
            context.log.info(trial.sentence(config.trials))
        return trials
