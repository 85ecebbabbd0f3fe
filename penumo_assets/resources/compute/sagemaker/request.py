"""From a job spec to the request that creates it: plain data, checked against the API's limits.

Built for boto3 and not for the sagemaker package's typed resources: those describe every job they have created once
more, and merge the defaults of a settings file on the machine into the request, so that the same spec would not be
the same job everywhere.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from penumo_assets.resources.compute.bundle import START_NAME
from penumo_assets.resources.compute.sagemaker.machines import has_gpu, has_local_disk, network_variables
from penumo_assets.resources.compute.sagemaker.service import Service
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.sagemaker.start import CODE_INPUT, GPU_VARIABLE, SECRET_SUFFIX
from penumo_assets.resources.compute.spec import JobFailed, JobSpec, bundle_digest

# From the API's model; boto3 itself checks neither lengths nor patterns.
ENVIRONMENT_LIMIT = {"processing": 256, "training": 512}
ARGUMENT_LIMIT, HYPERPARAMETER_LIMIT, ARGUMENT_COUNT = 256, 2500, 100
INPUT_COUNT = {"processing": 10, "training": 20}
TAG_LIMIT = 256
INPUT_FOLDER = {"processing": "/opt/ml/processing/input", "training": "/opt/ml/input/data"}
OUTPUT_FOLDER = "/opt/ml/processing/output"
CHECKPOINT_FOLDER = "/opt/ml/checkpoints"


def check_spec(settings: SageMakerSettings, spec: JobSpec) -> None:
    """Raises JobFailed, naming what is wrong, for a spec that SageMaker would refuse or silently cut."""
    problems = _too_long("variable", job_environment(settings, spec), ENVIRONMENT_LIMIT[spec.kind])
    if spec.kind == "processing":
        problems += _too_long("argument", {text[:20]: text for text in spec.arguments}, ARGUMENT_LIMIT)
        count = len(spec.arguments) + 2  # kind and program come first
    else:
        problems += _too_long("hyperparameter", hyperparameters(spec), HYPERPARAMETER_LIMIT)
        count = len(hyperparameters(spec))
    if count > ARGUMENT_COUNT:
        problems.append(f"{count} arguments are too many")
    if len(spec.inputs) + len(spec.documents) + 1 > INPUT_COUNT[spec.kind]:
        problems.append(f"more than {INPUT_COUNT[spec.kind] - 1} inputs")
    problems += [
        f"{name} is set, but its Secrets Manager ARN is not: set {name}{SECRET_SUFFIX}"
        for name in spec.secrets
        if os.environ.get(name) and not settings.secret_arns.get(name)
    ]
    if "@" in settings.pip_index_url:
        problems.append("PENUMO_PIP_INDEX_URL holds a password, which everybody sees who may describe the job")
    if problems:
        raise JobFailed(f"the {spec.program} job cannot run on SageMaker: " + "; ".join(problems))


def _too_long(what: str, texts: Mapping[str, str], limit: int) -> list[str]:
    return [f"{what} {name} is longer than {limit}" for name, text in texts.items() if len(text) > limit]


def job_environment(settings: SageMakerSettings, spec: JobSpec) -> dict[str, str]:
    """The job's variables. Secrets go by their ARN: everybody who may describe a job sees these."""
    secrets = {
        f"{name}{SECRET_SUFFIX}": settings.secret_arns[name] for name in spec.secrets if settings.secret_arns.get(name)
    }
    instance_type = settings.instance_type(spec)
    own = _given(
        PIP_INDEX_URL=settings.pip_index_url,
        **{GPU_VARIABLE: instance_type if has_gpu(instance_type) else ""},
    )
    if spec.kind == "training" and settings.instance_count(spec) > 1:
        own |= network_variables(instance_type)
    return {"PENUMO_CODE_VERSION": bundle_digest()[:16], **own, **spec.environment, **secrets}


def hyperparameters(spec: JobSpec) -> dict[str, str]:
    """``--name value`` pairs as a mapping.

    Raises
    ------
    JobFailed
        If the arguments are anything else: SageMaker has no other form.
    """
    names, values = spec.arguments[::2], spec.arguments[1::2]
    if len(names) != len(values) or not all(name.startswith("--") for name in names):
        raise JobFailed(f"arguments of a training job must be pairs of --name and value: {' '.join(spec.arguments)}")
    return {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}


def creation_request(
    service: Service,
    spec: JobSpec,
    name: str,
    manifests: Mapping[str, str],
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """Parameters of CreateProcessingJob or CreateTrainingJob."""
    build = _processing_request if spec.kind == "processing" else _training_request
    settings = service.settings
    request = build(service, spec, name, manifests)
    request |= {
        "RoleArn": settings.role_arn,
        "Environment": job_environment(settings, spec),
        "Tags": [{"Key": key, "Value": tag_value(value)} for key, value in {**settings.tags, **tags}.items()],
    }
    return request


def tag_value(text: str) -> str:
    """``text`` with characters that tags may not have replaced."""
    return re.sub(r"[^\w\s.:/=+\-@]", "_", text)[:TAG_LIMIT]


def checkpoint_prefix(job_name: str) -> str:
    """Where all attempts of one training keep their checkpoints: the next goes on where the last one broke off."""
    return f"jobs/{job_name.rpartition('-')[0]}-checkpoints"


def output_prefix(spec: JobSpec, job_name: str) -> str:
    """Where a job's outputs lie: all attempts' in one place if each goes on from what the others left."""
    return kept_prefix(job_name) if spec.keeps else f"jobs/{job_name}/output"


def kept_prefix(job_name: str) -> str:
    return f"jobs/{job_name.rpartition('-')[0]}-output"


def _entrypoint(spec: JobSpec) -> list[str]:
    return ["python3", f"{INPUT_FOLDER[spec.kind]}/{CODE_INPUT}/{START_NAME}"]


def _cluster(settings: SageMakerSettings, spec: JobSpec) -> dict[str, Any]:
    instance_type = settings.instance_type(spec)
    cluster = {
        "InstanceCount": settings.instance_count(spec),
        "InstanceType": instance_type,
        "VolumeSizeInGB": settings.volume_gb,
    }
    return cluster if has_local_disk(instance_type) else cluster | _given(VolumeKmsKeyId=settings.kms_key)


def _vpc(settings: SageMakerSettings) -> dict[str, Any]:
    if not settings.subnets:
        return {}
    return {"VpcConfig": {"Subnets": settings.subnets, "SecurityGroupIds": settings.security_group_ids}}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _runtime(settings: SageMakerSettings, spec: JobSpec) -> int:
    return min(spec.max_runtime_seconds, settings.max_runtime_seconds)


def _processing_request(service: Service, spec: JobSpec, name: str, manifests: Mapping[str, str]) -> dict[str, Any]:
    settings = service.settings
    outputs = [
        {
            "OutputName": output,
            "S3Output": {
                "S3Uri": service.store.uri(f"{output_prefix(spec, name)}/{output}"),
                "LocalPath": f"{OUTPUT_FOLDER}/{output}",
                "S3UploadMode": "Continuous" if spec.keeps else "EndOfJob",  # a job that fails reaches no such end
            },
        }
        for output in spec.outputs
    ]
    inputs = [
        {
            "InputName": input_name,
            "S3Input": {
                "S3Uri": uri,
                "LocalPath": f"{INPUT_FOLDER['processing']}/{input_name}",
                "S3DataType": "ManifestFile",
                "S3InputMode": "File",
                "S3DataDistributionType": "FullyReplicated",
            },
        }
        for input_name, uri in manifests.items()
    ]
    network = _given(EnableInterContainerTrafficEncryption=settings.encrypt_traffic) | _vpc(settings)
    return {
        "ProcessingJobName": name,
        "ProcessingInputs": inputs,
        "ProcessingOutputConfig": {"Outputs": outputs} | _given(KmsKeyId=settings.kms_key),
        "ProcessingResources": {"ClusterConfig": _cluster(settings, spec)},
        "StoppingCondition": {"MaxRuntimeInSeconds": _runtime(settings, spec)},
        "AppSpecification": {
            "ImageUri": spec.image,
            "ContainerEntrypoint": _entrypoint(spec),
            "ContainerArguments": ["processing", spec.program, *spec.arguments],
        },
    } | _given(NetworkConfig=network)


def _training_request(service: Service, spec: JobSpec, name: str, manifests: Mapping[str, str]) -> dict[str, Any]:
    settings, store = service.settings, service.store
    runtime = _runtime(settings, spec)
    channels = [
        {
            "ChannelName": input_name,
            "InputMode": "File",
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "ManifestFile",
                    "S3Uri": uri,
                    "S3DataDistributionType": "FullyReplicated",
                }
            },
        }
        for input_name, uri in manifests.items()
    ]
    stopping = {"MaxRuntimeInSeconds": runtime}
    if settings.use_spot:
        stopping |= {"MaxWaitTimeInSeconds": max(settings.max_wait_seconds, runtime)}
    request = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": spec.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": _entrypoint(spec),
            "ContainerArguments": ["training", spec.program],
        },
        "HyperParameters": hyperparameters(spec),
        "InputDataConfig": channels,
        # SageMaker adds {job name}/output to this, which is where this job's outputs belong.
        "OutputDataConfig": {"S3OutputPath": store.uri("jobs")} | _given(KmsKeyId=settings.kms_key),
        "ResourceConfig": _cluster(settings, spec),
        "StoppingCondition": stopping,
        "CheckpointConfig": {"S3Uri": store.uri(checkpoint_prefix(name)) + "/", "LocalPath": CHECKPOINT_FOLDER},
        "EnableManagedSpotTraining": settings.use_spot,
        "EnableInterContainerTrafficEncryption": settings.encrypt_traffic,
    }
    return request | _vpc(settings)
