"""Endpoints on SageMaker: models, endpoint configurations, endpoints, and one request to each kind.

boto3 and not the sagemaker package's typed resources, for the reasons of `request.py`: names must follow from what is
served, so that whoever comes next finds it, and an error is judged by botocore's own code and text.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from dagster import ResourceDependency
from pydantic import Field

from penumo_assets.configs.endpoint import LARGEST_MB, MB, EndpointConfig, Mode
from penumo_assets.resources.compute.sagemaker.machines import has_local_disk
from penumo_assets.resources.compute.sagemaker.outcome import console_urls
from penumo_assets.resources.compute.sagemaker.request import tag_value
from penumo_assets.resources.compute.sagemaker.service import TRANSIENT_ERRORS, Service
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.spec import JobFailed
from penumo_assets.resources.endpoints import EndpointError, Endpoints, EndpointService, State, Variant
from penumo_assets.resources.model_package import CONTAINER_ENVIRONMENT
from penumo_assets.resources.storage.object_store import ObjectMissing
from penumo_assets.resources.storage.root import Storage

# A blue/green update wants the same variant name in the old and the new configuration.
# https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-exclusions.html
VARIANT = "champion"
STARTUP_SECONDS = 900  # an endpoint in AWS's image installs what that lacks
_CREATED_A_MOMENT_AGO = 5  # looks, until a configuration that was just made is known everywhere


class SageMakerEndpoints(Endpoints):
    """Endpoints of the account that jobs run in, under the jobs' role, network and keys."""

    storage: ResourceDependency[Storage]
    settings: SageMakerSettings = Field(default_factory=SageMakerSettings)

    def open(self) -> EndpointService:
        try:
            return SageMakerEndpointService(Service(self.settings, self.storage))
        except JobFailed as missing:
            raise EndpointError(str(missing)) from missing


class SageMakerEndpointService:
    """See `EndpointService`."""

    def __init__(self, service: Service) -> None:
        self.service, self.settings = service, service.settings
        self._client = service.client("sagemaker")

    def name(self, mode: Mode) -> str:
        return f"{self.settings.job_name_prefix}-{mode.value}"

    def variant(self, version: str, package: str, settings: EndpointConfig) -> Variant:
        own, role = self.settings, self.settings.role_arn
        facts = [package, settings.model_dump(mode="json", exclude={"largest_film_mb"}), _environment(settings.mode)]
        facts += [role, own.subnets, own.security_group_ids, own.kms_key]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{self.name(settings.mode)}-v{version}-{digest}"
        return Variant(name=name, version=version, package=package, settings=settings)

    def state(self, endpoint: str) -> State | None:
        answer = _sent(lambda: self._client.describe_endpoint(EndpointName=endpoint), "could not find")
        if answer is None:
            return None
        return State(answer["EndpointStatus"], answer["EndpointConfigName"], answer.get("FailureReason", ""))

    def prepare(self, variant: Variant) -> None:
        mode, own = variant.settings.mode, self.settings
        network = {"Subnets": own.subnets, "SecurityGroupIds": own.security_group_ids}
        model: dict[str, Any] = {
            "ModelName": variant.name,
            "PrimaryContainer": {"ModelPackageName": variant.package, "Environment": _environment(mode)},
            "ExecutionRoleArn": own.role_arn,
            "Tags": self._tags(variant),
        }
        if own.subnets and mode is not Mode.serverless:  # which runs in no VPC of ours
            model["VpcConfig"] = network
        _sent(lambda: self._client.create_model(**model), "already existing")
        if mode is not Mode.batch:
            request = self._configuration(variant)
            _sent(lambda: self._client.create_endpoint_config(**request), "already existing")

    def point(self, endpoint: str, variant: Variant) -> None:
        place: dict[str, Any] = {"EndpointName": endpoint, "EndpointConfigName": variant.name}
        move = self._client.update_endpoint
        if self.state(endpoint) is None:
            move, place = self._client.create_endpoint, place | {"Tags": self._tags(variant)}
        for left in reversed(range(_CREATED_A_MOMENT_AGO)):
            try:
                _sent(lambda: move(**place), "already existing")
                return
            except EndpointError as error:
                if "Could not find" not in str(error) or not left:
                    raise
                self.pause()

    def ask(self, endpoint: str, variant: Variant, body: bytes, content_type: str) -> tuple[int, str]:
        ask = {Mode.asynchronous: self._ask_by_queue, Mode.batch: self._ask_by_transform}
        return ask.get(variant.settings.mode, self._ask)(endpoint or variant.name, variant, body, content_type)

    def pause(self) -> None:
        time.sleep(self.settings.poll_seconds)

    def take_down(self, endpoint: str) -> None:
        """An endpoint that is being made cannot be removed yet: EndpointError."""
        _sent(lambda: self._client.delete_endpoint(EndpointName=endpoint), "could not find")

    def forget(self, variant: Variant) -> None:
        if variant.settings.mode is not Mode.batch:
            remove = self._client.delete_endpoint_config
            _sent(lambda: remove(EndpointConfigName=variant.name), "could not find")
        _sent(lambda: self._client.delete_model(ModelName=variant.name), "could not find")

    def address(self, endpoint: str) -> str:
        return console_urls(self.service.region, "endpoint", f"/aws/sagemaker/Endpoints/{endpoint}", endpoint)[0]

    def _configuration(self, variant: Variant) -> dict[str, Any]:
        """Parameters of CreateEndpointConfig."""
        settings, own = variant.settings, self.settings
        production: dict[str, Any] = {"VariantName": VARIANT, "ModelName": variant.name}
        request: dict[str, Any] = {
            "EndpointConfigName": variant.name,
            "ProductionVariants": [production],
            "Tags": self._tags(variant),
        }
        if settings.mode is Mode.serverless:
            limits = {"MemorySizeInMB": settings.memory_mb, "MaxConcurrency": settings.max_concurrency}
            production["ServerlessConfig"] = limits
            return request
        production |= {
            "InstanceType": settings.instance_type,
            "InitialInstanceCount": settings.instance_count,
            "ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_SECONDS,
        }
        if own.kms_key and not has_local_disk(settings.instance_type):
            request["KmsKeyId"] = own.kms_key
        if settings.mode is Mode.asynchronous:
            below = self.service.store.uri(f"jobs/{self.name(settings.mode)}")
            places = {"S3OutputPath": f"{below}/answers", "S3FailurePath": f"{below}/refused"}
            request["AsyncInferenceConfig"] = {"OutputConfig": places | _key(own.kms_key)}
        return request

    def _ask(self, endpoint: str, variant: Variant, body: bytes, content_type: str) -> tuple[int, str]:
        client = self.service.client("sagemaker-runtime")
        try:
            answer = client.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType=content_type)
            return 200, answer["Body"].read().decode("utf-8", "replace")
        except client.exceptions.ModelError as error:
            return int(error.response.get("OriginalStatusCode", 500)), error.response.get("OriginalMessage", str(error))
        except (ClientError, BotoCoreError) as error:
            raise _failure(error) from error

    def _ask_by_queue(self, endpoint: str, variant: Variant, body: bytes, content_type: str) -> tuple[int, str]:
        store, client = self.service.store, self.service.client("sagemaker-runtime")
        key = self._sample(endpoint, body)
        answer = _sent(
            lambda: client.invoke_endpoint_async(
                EndpointName=endpoint, InputLocation=store.uri(key), ContentType=content_type
            )
        )
        places = [answer[name].removeprefix(f"{store.root_uri}/") for name in ("OutputLocation", "FailureLocation")]
        while True:
            for place, status in zip(places, (200, 500), strict=True):
                try:
                    text = store.read(place).decode("utf-8", "replace")
                except ObjectMissing:
                    continue
                said = re.search(r"\((\d{3})\)", text) if status == 500 else None
                return (int(said[1]) if said else status), text
            self.pause()

    def _ask_by_transform(self, endpoint: str, variant: Variant, body: bytes, content_type: str) -> tuple[int, str]:
        """One transform job on one film; a job that runs already or has ended well is not started again."""
        key = self._sample(endpoint, body)
        for attempt in count(1):
            job = f"{variant.name}-canary-{attempt}"
            answer = self._transform(job)
            if answer is not None and answer["TransformJobStatus"] in {"Failed", "Stopped"}:
                continue
            if answer is None:
                _sent(
                    partial(
                        self._client.create_transform_job, **self._transform_request(job, variant, key, content_type)
                    )
                )
            while (answer := self._transform(job)) is None or answer["TransformJobStatus"] in {
                "InProgress",
                "Stopping",
            }:
                self.pause()
            if answer["TransformJobStatus"] != "Completed":
                return 500, f"transform job {job} failed: {answer.get('FailureReason', 'no reason given')}"
            name = f"{_output_prefix(job)}/{key.rpartition('/')[2]}.out"
            return 200, self.service.store.read(name).decode("utf-8", "replace")
        raise AssertionError("a count has no end")

    def _transform(self, job: str) -> dict[str, Any] | None:
        return _sent(lambda: self._client.describe_transform_job(TransformJobName=job), "could not find")

    def _transform_request(self, job: str, variant: Variant, key: str, content_type: str) -> dict[str, Any]:
        store, settings, kms_key = self.service.store, variant.settings, self.settings.kms_key
        disk = {} if has_local_disk(settings.instance_type) or not kms_key else {"VolumeKmsKeyId": kms_key}
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": store.uri(key)}}
        output = {"S3OutputPath": store.uri(_output_prefix(job)), "Accept": "application/json"}
        return {
            "TransformJobName": job,
            "ModelName": variant.name,
            "MaxConcurrentTransforms": 1,  # times the payload: 100 MB at most
            "MaxPayloadInMB": LARGEST_MB[Mode.batch],
            "BatchStrategy": "SingleRecord",
            "TransformInput": {"DataSource": source, "ContentType": content_type},
            "TransformOutput": output | _key(kms_key),
            "TransformResources": {"InstanceType": settings.instance_type, "InstanceCount": 1} | disk,
            "Tags": self._tags(variant),
        }

    def _sample(self, endpoint: str, body: bytes) -> str:
        """Store what is sent where the container's role may read it; its key."""
        key = f"inputs/{endpoint}/{hashlib.sha256(body).hexdigest()[:16]}"
        self.service.store.write(key, body)
        return key

    def _tags(self, variant: Variant) -> list[dict[str, str]]:
        tags = {**self.settings.tags, "penumo/asset": "endpoint", "penumo/version": variant.version}
        return [{"Key": key, "Value": tag_value(value)} for key, value in tags.items()]


def _output_prefix(job: str) -> str:
    return f"jobs/{job}/output"


def _key(kms_key: str) -> dict[str, str]:
    return {"KmsKeyId": kms_key} if kms_key else {}


def _environment(mode: Mode) -> dict[str, str]:
    """The container's variables: TorchServe takes what the mode takes."""
    return CONTAINER_ENVIRONMENT | {"TS_MAX_REQUEST_SIZE": str(LARGEST_MB[mode] * MB)}


def _sent(request: Callable[[], Any], expected: str = "") -> Any:
    """The answer to a request; None if it was refused in the ``expected`` words.

    Raises
    ------
    EndpointError
        If it was refused otherwise; ``transient`` if it may succeed later.
    """
    try:
        return request()
    except ClientError as error:
        if expected and expected in error.response.get("Error", {}).get("Message", "").lower():
            return None
        raise _failure(error) from error
    except BotoCoreError as error:
        raise _failure(error) from error


def _failure(error: ClientError | BotoCoreError) -> EndpointError:
    if not isinstance(error, ClientError):
        return EndpointError(f"SageMaker does not take the request: {error}", transient=True)
    details = error.response.get("Error", {})
    code, message = (
        details.get("Code", "unknown"),
        f"SageMaker refuses {error.operation_name}: {details.get('Message')}",
    )
    if code == "ResourceLimitExceeded":
        return EndpointError(
            f"{message} Ask for more in Service Quotas (AWS's console), or choose less: instance_type, "
            "instance_count, memory_mb, max_concurrency"
        )
    if code in {"AccessDenied", "AccessDeniedException"}:
        message += " (docs/aws/iam_orchestrator.json, statement ServeTheChampion)"
    return EndpointError(message, transient=code in TRANSIENT_ERRORS or "in-progress" in message)
