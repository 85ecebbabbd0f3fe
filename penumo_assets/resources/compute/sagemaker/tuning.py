"""One hyperparameter tuning job: describe, create, stop, and read its trials."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from penumo_assets.configs.search import FINAL_OBJECTIVE, OBJECTIVE, NumberRange, SearchConfig, SearchSpace
from penumo_assets.resources.compute.bundle import START_NAME, publish_bundle
from penumo_assets.resources.compute.sagemaker.inputs import input_prefix, write_inputs
from penumo_assets.resources.compute.sagemaker.job import LOG_GROUP
from penumo_assets.resources.compute.sagemaker.outcome import Description, plain
from penumo_assets.resources.compute.sagemaker.request import (
    CHECKPOINT_FOLDER,
    INPUT_FOLDER,
    check_spec,
    checkpoint_prefix,
    creation_request,
)
from penumo_assets.resources.compute.sagemaker.service import Service, created, described, stopped
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.sagemaker.start import CHECKPOINTS_VARIABLE, CODE_INPUT, TRIAL_VARIABLE
from penumo_assets.resources.compute.search import Trial
from penumo_assets.resources.compute.spec import JobFailed, JobSpec

# From the API's model.
NAME_LIMIT = 32
PARAMETER_LIMIT, CHOICE_LIMIT, CHOICE_LENGTH = 30, 30, 256
RETRY_LIMIT = 30


class TuningJob:
    """A search under the name of one of its attempts: what the runner asks of a `SageMakerJob`, and its trials."""

    noun, kind, log_group = "search", "tuning", LOG_GROUP["training"]

    def __init__(self, service: Service, spec: JobSpec, space: SearchSpace, config: SearchConfig, attempt: int) -> None:
        self.name = tuning_job_name(service.settings.job_name_prefix, spec, space, config, attempt)
        self.attempt = attempt
        self._service, self._spec, self._space, self._config = service, spec, space, config
        self._client = service.client("sagemaker")

    def describe(self) -> Description | None:
        """How it stands; None if there is no such search. Raises JobFailed if it cannot be described."""
        describe = self._client.describe_hyper_parameter_tuning_job
        answer = described(self.name, lambda: describe(HyperParameterTuningJobName=self.name))
        return None if answer is None else Description.of_tuning(answer)

    def create(self, tags: Mapping[str, str]) -> bool:
        """Store the inputs and start; False if another process was first. Raises JobFailed if SageMaker refuses."""
        store = self._service.store
        manifests = write_inputs(store, self._spec, self.name, publish_bundle(store))
        training = creation_request(self._service, self._spec, self.name, manifests, tags)
        request = tuning_request(self._service, self._spec, self._space, self._config, training)
        return created(self.name, lambda: self._client.create_hyper_parameter_tuning_job(**request))

    def stop(self) -> None:
        """Ask the service to stop the search and what it runs."""
        stop = self._client.stop_hyper_parameter_tuning_job
        stopped(lambda: stop(HyperParameterTuningJobName=self.name))

    def trials(self) -> list[Trial]:
        """All trainings so far, in the order in which they were started."""
        pages = self._client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        request = {
            "HyperParameterTuningJobName": self.name,
            "SortBy": "CreationTime",
            "SortOrder": "Ascending",
        }
        answer = described(self.name, lambda: pages.paginate(**request).build_full_result())
        summaries = answer["TrainingJobSummaries"] if answer else []
        return [_trial(number, summary, self._space) for number, summary in enumerate(summaries)]

    def has_result(self) -> bool:
        """What a search is asked for is in the service's own record, which stays."""
        return True

    def remove_inputs(self) -> None:
        """Remove what the trainings were given."""
        self._service.store.delete_folder(input_prefix(self.name))

    def discard(self) -> None:
        """Remove the trials' models and inputs."""
        for prefix in (f"jobs/{self.name}", checkpoint_prefix(self.name)):
            self._service.store.delete_folder(prefix)
        self.remove_inputs()


def tuning_job_name(prefix: str, spec: JobSpec, space: SearchSpace, config: SearchConfig, attempt: int) -> str:
    """Deterministic name of at most 32 characters. How many trials run at a time is not part of what is asked."""
    identity = json.dumps([spec.digest(), space.model_dump(), config.trials, config.seed], sort_keys=True)
    tail = f"{hashlib.sha256(identity.encode()).hexdigest()[:12]}-{attempt}"
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{prefix}-{spec.partition or spec.asset}").strip("-")
    return f"{words[: NAME_LIMIT - len(tail) - 1].rstrip('-')}-{tail}"


def check_search(settings: SageMakerSettings, spec: JobSpec, space: SearchSpace) -> None:
    """Raises JobFailed, naming what is wrong, for a search that SageMaker would refuse."""
    check_spec(settings, spec)
    problems = [f"more than {PARAMETER_LIMIT} hyperparameters"] if len(space.parameters) > PARAMETER_LIMIT else []
    for name, parameter in space.parameters.items():
        if isinstance(parameter, NumberRange):
            continue
        if len(parameter.values) > CHOICE_LIMIT:
            problems.append(f"{name} has more than {CHOICE_LIMIT} values")
        if any(len(json.dumps(value)) > CHOICE_LENGTH for value in parameter.values):
            problems.append(f"a value of {name} is longer than {CHOICE_LENGTH}")
    if problems:
        raise JobFailed("SageMaker cannot search this space: " + "; ".join(problems))


def tuning_request(
    service: Service,
    spec: JobSpec,
    space: SearchSpace,
    config: SearchConfig,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """Parameters of CreateHyperParameterTuningJob, from those of a training job like each of its trials."""
    name, tags = training["TrainingJobName"], training["Tags"]
    objective = {"Type": "Maximize", "MetricName": OBJECTIVE}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": objective,
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": config.trials,
                "MaxParallelTrainingJobs": min(config.parallel, config.trials),
            },
            "ParameterRanges": parameter_ranges(space),
            "TrainingJobEarlyStoppingType": "Off",  # the objective is known at the end only
            "RandomSeed": config.seed,
        },
        "TrainingJobDefinition": _definition(service, spec, space, training),
        "Tags": tags,
    }


def parameter_ranges(space: SearchSpace) -> dict[str, list[dict[str, Any]]]:
    """The space in the API's form: numbers as plain text, choices as JSON, which the images' toolkit decodes."""
    ranges: dict[str, list[dict[str, Any]]] = {
        "ContinuousParameterRanges": [],
        "IntegerParameterRanges": [],
        "CategoricalParameterRanges": [],
    }
    for name, parameter in space.parameters.items():
        if not isinstance(parameter, NumberRange):
            values = [json.dumps(value) for value in parameter.values]
            ranges["CategoricalParameterRanges"].append({"Name": name, "Values": values})
            continue
        kind = "IntegerParameterRanges" if parameter.type == "integer" else "ContinuousParameterRanges"
        low, high = parameter.edges()
        scale = "Logarithmic" if parameter.log else "Linear"
        ranges[kind].append({"Name": name, "MinValue": low, "MaxValue": high, "ScalingType": scale})
    return ranges


def _definition(service: Service, spec: JobSpec, space: SearchSpace, training: Mapping[str, Any]) -> dict[str, Any]:
    """What every trial has in common.

    A tuning job takes no entry point. The images' own, the SageMaker training toolkit, copies the folder
    ``sagemaker_submit_directory`` to /opt/ml/code and runs ``sagemaker_program`` there: the same start.py from the
    same channel that is a training job's entry point.
    """
    settings, store = service.settings, service.store
    name, algorithm = training["TrainingJobName"], training["AlgorithmSpecification"]
    fixed = {key: value for key, value in training["HyperParameters"].items() if key not in space.parameters}
    fixed |= {
        "sagemaker_program": START_NAME,
        "sagemaker_submit_directory": f"{INPUT_FOLDER['training']}/{CODE_INPUT}",
    }
    own = {"TrainingJobName", "HyperParameters", "AlgorithmSpecification", "Tags", "CheckpointConfig"}
    definition = {key: value for key, value in training.items() if key not in own} | {
        "StaticHyperParameters": {key: json.dumps(value) for key, value in fixed.items()},
        "AlgorithmSpecification": {
            "TrainingImage": algorithm["TrainingImage"],
            "TrainingInputMode": algorithm["TrainingInputMode"],
            "MetricDefinitions": [{"Name": OBJECTIVE, "Regex": f"{FINAL_OBJECTIVE}=([-+.0-9e]+);"}],
        },
        "OutputDataConfig": training["OutputDataConfig"] | {"S3OutputPath": store.uri(f"jobs/{name}")},
        "Environment": training["Environment"] | {TRIAL_VARIABLE: spec.program},
    }
    if settings.use_spot:
        # One prefix for all trials, each of which is given all of it: start.py removes what a finished trial left.
        checkpoints = store.uri(checkpoint_prefix(name)) + "/"
        definition["CheckpointConfig"] = {"S3Uri": checkpoints, "LocalPath": CHECKPOINT_FOLDER}
        definition["Environment"] |= {CHECKPOINTS_VARIABLE: checkpoints}
    if settings.max_retries:
        definition["RetryStrategy"] = {"MaximumRetryAttempts": min(settings.max_retries, RETRY_LIMIT)}
    return definition


def _trial(number: int, summary: Mapping[str, Any], space: SearchSpace) -> Trial:
    tuned = summary["TunedHyperParameters"]
    values = {name: json.loads(text) if text.startswith('"') else text for name, text in tuned.items()}
    values = {name: values[name] for name in space.parameters if name in values}
    status, job_name = summary["TrainingJobStatus"], summary["TrainingJobName"]
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    if status == "Completed" and metric is not None:
        return Trial(number, values, float(metric["Value"]), job_name)
    if status == "Completed":
        return Trial(number, values, None, job_name, f"its log names no {FINAL_OBJECTIVE}")
    return Trial(number, values, None, job_name, plain(summary.get("FailureReason", "")) or f"it is {status}")
