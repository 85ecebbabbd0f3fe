"""A hyperparameter tuning job: draws hyperparameters and runs each training as a job of its own."""

import math
import random
import re
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from penumo_assets_tests.aws.emulator.faults import JobScript
from penumo_assets_tests.aws.emulator.job import TICK_SECONDS, Job
from penumo_assets_tests.aws.emulator.rules import ApiError

TUNING = "HyperParameterTuning"
_COUNTERS = {"Completed": "Completed", "Failed": "NonRetryableError", "Stopped": "Stopped"}


class Tuning:
    """A search. Its draws are random, whatever the strategy: the runner under test cannot tell."""

    kind = TUNING

    def __init__(
        self,
        name: str,
        arn: str,
        params: dict[str, Any],
        script: JobScript,
        start: Callable[[str, dict[str, Any]], Job],
    ) -> None:
        self.name, self.arn, self.params, self.script = name, arn, params, script
        self.status, self.reason = "InProgress", ""
        self.created = datetime.now(UTC)
        self.finished: datetime | None = None
        self.trials: list[tuple[Job, dict[str, str]]] = []
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._start = start
        self._config = params["HyperParameterTuningJobConfig"]
        self._random = random.Random(self._config.get("RandomSeed", 0))
        self._stopping = threading.Event()

    @property
    def ended(self) -> bool:
        return self.status in {"Completed", "Failed", "Stopped"}

    def stop(self) -> None:
        if not self.ended:
            self.status = "Stopping"
            self._stopping.set()

    def state(self) -> dict[str, Any]:
        jobs = [_COUNTERS.get(job.status, "InProgress") for job, _ in self.trials]
        objectives = [summary["ObjectiveStatus"] for summary in self.summaries()]
        return {
            "HyperParameterTuningJobStatus": self.status,
            "CreationTime": self.created,
            "LastModifiedTime": self.finished or self.created,
            "HyperParameterTuningEndTime": self.finished,
            "FailureReason": self.reason or None,
            "TrainingJobStatusCounters": {
                name: jobs.count(name) for name in ("Completed", "InProgress", "NonRetryableError", "Stopped")
            }
            | {"RetryableError": 0},
            "ObjectiveStatusCounters": {name: objectives.count(name) for name in ("Succeeded", "Pending", "Failed")},
        }

    def summaries(self) -> list[dict[str, Any]]:
        """The trainings so far, the oldest first."""
        found = []
        for job, tuned in self.trials:
            value, ended = self._objective(job), job.ended
            summary = {
                "TrainingJobName": job.name,
                "TrainingJobArn": job.arn,
                "CreationTime": job.created,
                "TrainingStartTime": job.started,
                "TrainingEndTime": job.finished,
                "TrainingJobStatus": job.status,
                "TunedHyperParameters": tuned,
                "FailureReason": job.reason[:1024] or None,
                "ObjectiveStatus": "Pending" if not ended else "Failed" if value is None else "Succeeded",
            }
            if ended and value is not None:
                objective = self._config["HyperParameterTuningJobObjective"]
                summary["FinalHyperParameterTuningJobObjectiveMetric"] = {**objective, "Value": value}
            found.append({name: item for name, item in summary.items() if item is not None})
        return found

    def _live(self) -> None:
        limits = self._config["ResourceLimits"]
        while not self._stopping.is_set():
            running = sum(not job.ended for job, _ in self.trials)
            if len(self.trials) == limits["MaxNumberOfTrainingJobs"]:
                if not running:
                    break
            elif running < limits["MaxParallelTrainingJobs"]:
                self._begin()
            time.sleep(TICK_SECONDS)
        for job, _ in self.trials:
            job.stop()
        for job, _ in self.trials:
            job.thread.join()
        self.finished = datetime.now(UTC)
        if self._stopping.is_set():
            self.status = "Stopped"
        elif any(job.status == "Completed" for job, _ in self.trials):
            self.status = "Completed"
        else:
            self.reason = f"No training job succeeded after {len(self.trials)} attempts. Look at the training jobs."
            self.status = "Failed"

    def _begin(self) -> None:
        definition = dict(self.params["TrainingJobDefinition"])
        tuned = self._drawn()
        metric = self._config["HyperParameterTuningJobObjective"]["MetricName"]
        fixed = definition.pop("StaticHyperParameters", {})
        name = f"{self.name}-{len(self.trials) + 1:03d}-{uuid.UUID(int=self._random.getrandbits(128)).hex[:8]}"
        params = definition | {
            "TrainingJobName": name,
            "TuningJobArn": self.arn,
            "HyperParameters": fixed | tuned | {"_tuning_objective_metric": metric},
        }
        with suppress(ApiError):  # no quota: it is tried again when another training has ended
            self.trials.append((self._start(name, params), tuned))

    def _drawn(self) -> dict[str, str]:
        ranges, drawn = self._config["ParameterRanges"], {}
        for item in ranges.get("CategoricalParameterRanges", []):
            drawn[item["Name"]] = self._random.choice(item["Values"])
        for item in ranges.get("IntegerParameterRanges", []):
            drawn[item["Name"]] = str(round(self._number(item)))
        for item in ranges.get("ContinuousParameterRanges", []):
            drawn[item["Name"]] = str(self._number(item))
        return drawn

    def _number(self, item: dict[str, str]) -> float:
        low, high = float(item["MinValue"]), float(item["MaxValue"])
        if item.get("ScalingType") == "Logarithmic":
            return math.exp(self._random.uniform(math.log(low), math.log(high)))
        return self._random.uniform(low, high)

    def _objective(self, job: Job) -> float | None:
        """The last value that the metric's expression finds in the training's log."""
        definitions = self.params["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
        wanted = self._config["HyperParameterTuningJobObjective"]["MetricName"]
        pattern = next(item["Regex"] for item in definitions if item["Name"] == wanted)
        found = re.findall(pattern, "\n".join(job.messages()))
        return float(found[-1]) if found else None
