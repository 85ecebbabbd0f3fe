"""What SageMaker refuses: by botocore's model of the API, and by rules that the model does not hold."""

import re
from functools import cache
from typing import Any

import botocore.session

# Families that jobs may name and that have disks of their own: EC2's table of instance store volumes, type by type.
_LOCAL_STORAGE = frozenset(
    (
        *("c5d", "m5d", "r5d", "p3dn", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300", "p6e-gb200"),
        *("g4dn", "g5", "g6", "g6e", "g7", "g7e", "trn1", "trn1n", "trn2"),
    )
)


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


@cache
def service_model() -> Any:
    return botocore.session.get_session().get_service_model("sagemaker")


def validate(operation: str, params: dict[str, Any]) -> None:
    """Raises ApiError as the service would: lengths, patterns and enumerations, which boto3 does not check."""
    problems = list(_problems(service_model().operation_model(operation).input_shape, params, ""))
    if problems:
        shown = "; ".join(problems[:10])
        plural = "error" if len(problems) == 1 else "errors"
        raise ApiError("ValidationException", f"{len(problems)} validation {plural} detected: {shown}")
    checks = {
        "CreateProcessingJob": _check_processing,
        "CreateTrainingJob": _check_training,
        "CreateHyperParameterTuningJob": _check_tuning,
    }
    if operation in checks:
        checks[operation](params)


def _problems(shape: Any, value: Any, path: str):
    check = {"structure": _structure, "list": _list, "map": _map, "string": _string}.get(shape.type_name)
    if check:
        yield from check(shape, value, path)
    elif shape.type_name in {"integer", "long"}:
        if not isinstance(value, int) or isinstance(value, bool):
            yield f"{path} must be a number"
        else:
            yield from _bounds(shape, value, path, "value")
    elif shape.type_name == "boolean" and not isinstance(value, bool):
        yield f"{path} must be a boolean"


def _structure(shape: Any, value: Any, path: str):
    if not isinstance(value, dict):
        yield f"{path} must be a structure"
        return
    yield from (f"{path}.{name} is missing" for name in shape.required_members if name not in value)
    for name, item in value.items():
        if name not in shape.members:
            yield f"{path}.{name} is unknown"
        else:
            yield from _problems(shape.members[name], item, f"{path}.{name}")


def _list(shape: Any, value: Any, path: str):
    if not isinstance(value, list):
        yield f"{path} must be a list"
        return
    yield from _bounds(shape, len(value), path, "length")
    for number, item in enumerate(value):
        yield from _problems(shape.member, item, f"{path}[{number}]")


def _map(shape: Any, value: Any, path: str):
    if not isinstance(value, dict):
        yield f"{path} must be a map"
        return
    yield from _bounds(shape, len(value), path, "size")
    for name, item in value.items():
        yield from _problems(shape.key, name, f"{path} key {name}")
        yield from _problems(shape.value, item, f"{path}.{name}")


def _string(shape: Any, value: Any, path: str):
    if not isinstance(value, str):
        yield f"{path} must be a string"
        return
    yield from _bounds(shape, len(value), path, "length")
    if shape.enum and value not in shape.enum:
        yield f"{path}: {value!r} is not one of the allowed values"
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(_python_pattern(pattern), value):
        yield f"{path}: {value!r} does not match {pattern}"


def _bounds(shape: Any, value: int, path: str, what: str):
    if value < shape.metadata.get("min", value) or value > shape.metadata.get("max", value):
        yield f"{path}: {what} {value} is not within {shape.metadata.get('min')} and {shape.metadata.get('max')}"


def _python_pattern(pattern: str) -> str:
    """Java's character classes in Python's words; surrogates cannot occur in a Python string."""
    return (
        pattern.replace("\\p{L}", "\\w")
        .replace("\\p{Z}", "\\s")
        .replace("\\p{N}", "\\d")
        .replace("\\uD800\\uDC00-\\uDBFF\\uDFFF", "\\U00010000-\\U0010FFFF")
    )


def _refuse(condition: bool, message: str) -> None:
    if condition:
        raise ApiError("ValidationException", message)


def _distinct(values: list[str], what: str) -> None:
    _refuse(len(set(values)) < len(values), f"{what} must be unique")


def _check_processing(params: dict[str, Any]) -> None:
    inputs = params.get("ProcessingInputs", [])
    outputs = params.get("ProcessingOutputConfig", {}).get("Outputs", [])
    _distinct([item["InputName"] for item in inputs], "Processing input names")
    _distinct([item["OutputName"] for item in outputs], "Processing output names")
    paths = [item["S3Input"].get("LocalPath", "") for item in inputs]
    paths += [item["S3Output"]["LocalPath"] for item in outputs]
    _distinct(paths, "Local paths")
    for path in paths:
        _refuse(not path.startswith("/opt/ml/processing/"), f"LocalPath {path} must be below /opt/ml/processing")
    _check_disk(params["ProcessingResources"]["ClusterConfig"])
    _check_common(params)


def _check_training(params: dict[str, Any]) -> None:
    _check_definition(params)
    _check_common(params)


def _check_tuning(params: dict[str, Any]) -> None:
    config, definition = params["HyperParameterTuningJobConfig"], params["TrainingJobDefinition"]
    limits = config["ResourceLimits"]
    _refuse(
        limits["MaxParallelTrainingJobs"] > limits["MaxNumberOfTrainingJobs"],
        "MaxParallelTrainingJobs must not be above MaxNumberOfTrainingJobs",
    )
    metrics = [item["Name"] for item in definition["AlgorithmSpecification"].get("MetricDefinitions", [])]
    wanted = config["HyperParameterTuningJobObjective"]["MetricName"]
    _refuse(wanted not in metrics, f"Objective metric {wanted} is not among the metric definitions")
    ranges = config["ParameterRanges"]
    numbers = ranges.get("IntegerParameterRanges", []) + ranges.get("ContinuousParameterRanges", [])
    for item in numbers:
        _check_range(item)
    for item in ranges.get("CategoricalParameterRanges", []):
        _distinct(item["Values"], f"Values of {item['Name']}")
    names = [item["Name"] for items in ranges.values() for item in items]
    _distinct([*names, *definition.get("StaticHyperParameters", {})], "Hyperparameter names")
    _check_definition(definition)
    _check_common(params)


def _check_range(item: dict[str, str]) -> None:
    try:
        low, high = float(item["MinValue"]), float(item["MaxValue"])
    except ValueError as error:
        raise ApiError("ValidationException", f"The bounds of {item['Name']} must be numbers") from error
    _refuse(low >= high, f"MinValue of {item['Name']} must be below MaxValue")
    _refuse(item.get("ScalingType") == "Logarithmic" and low <= 0, f"{item['Name']}: logarithmic scaling from above 0")


def _check_disk(cluster: dict[str, Any]) -> None:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html, VolumeKmsKeyId."""
    instance_type = cluster.get("InstanceType", "")
    _refuse(
        "VolumeKmsKeyId" in cluster and instance_type.removeprefix("ml.").partition(".")[0] in _LOCAL_STORAGE,
        f"VolumeKmsKeyId is not supported for instance type {instance_type}, which has local storage",
    )


def _check_definition(params: dict[str, Any]) -> None:
    """What a training job and the definition of a tuning job's trainings have in common."""
    _check_disk(params["ResourceConfig"])
    channels = [item["ChannelName"] for item in params.get("InputDataConfig", [])]
    _distinct(channels, "Channel names")
    stopping = params.get("StoppingCondition", {})
    spot, wait = params.get("EnableManagedSpotTraining", False), stopping.get("MaxWaitTimeInSeconds")
    _refuse(spot and wait is None, "MaxWaitTimeInSeconds must be set when EnableManagedSpotTraining is true")
    _refuse(not spot and wait is not None, "MaxWaitTimeInSeconds needs EnableManagedSpotTraining")
    runtime = stopping.get("MaxRuntimeInSeconds", 0)
    _refuse(wait is not None and wait < runtime, "MaxWaitTimeInSeconds must not be below MaxRuntimeInSeconds")
    algorithm = params["AlgorithmSpecification"]
    _refuse(
        ("TrainingImage" in algorithm) == ("AlgorithmName" in algorithm), "give either TrainingImage or AlgorithmName"
    )


def _check_common(params: dict[str, Any]) -> None:
    keys = [tag["Key"] for tag in params.get("Tags", [])]
    _distinct(keys, "Tag keys")
    _refuse(any(key.lower().startswith("aws:") for key in keys), "Tag keys must not start with aws:")
