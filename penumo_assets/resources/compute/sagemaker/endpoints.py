"""Endpoints on SageMaker: models, endpoint configurations, and endpoints that are pointed at them.

boto3 and not the sagemaker package's typed resources, for the reasons of `request.py`: names must follow from what is
served, so that whoever comes next finds it, and an error is judged by botocore's own code and text.
"""

import hashlib
import json
import time
from typing import Any

from dagster import ResourceDependency
from pydantic import Field

from penumo_assets.configs.endpoint import LARGEST_MB, MB, EndpointConfig, Mode
from penumo_assets.resources.compute.sagemaker.machines import has_local_disk
from penumo_assets.resources.compute.sagemaker.outcome import console_urls
from penumo_assets.resources.compute.sagemaker.questions import (
    ask_at_once,
    ask_by_queue,
    ask_by_transform,
    encryption,
    sent,
)
from penumo_assets.resources.compute.sagemaker.request import tag_value
from penumo_assets.resources.compute.sagemaker.service import Service
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.spec import JobFailed
from penumo_assets.resources.endpoints import EndpointError, Endpoints, EndpointService, State, Variant
from penumo_assets.resources.model_package import CONTAINER_ENVIRONMENT
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
        answer = sent(lambda: self._client.describe_endpoint(EndpointName=endpoint), "could not find")
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
        sent(lambda: self._client.create_model(**model), "already existing")
        if mode is not Mode.batch:
            request = self._configuration(variant)
            sent(lambda: self._client.create_endpoint_config(**request), "already existing")

    def point(self, endpoint: str, variant: Variant) -> None:
        place: dict[str, Any] = {"EndpointName": endpoint, "EndpointConfigName": variant.name}
        move = self._client.update_endpoint
        if self.state(endpoint) is None:
            move, place = self._client.create_endpoint, place | {"Tags": self._tags(variant)}
        for left in reversed(range(_CREATED_A_MOMENT_AGO)):
            try:
                sent(lambda: move(**place), "already existing")
                return
            except EndpointError as error:
                if "Could not find" not in str(error) or not left:
                    raise
                self.pause()

    def ask(self, endpoint: str, variant: Variant, body: bytes, content_type: str) -> tuple[int, str]:
        if variant.settings.mode is Mode.batch:
            return ask_by_transform(self.service, variant, self._tags(variant), body, content_type)
        ask = ask_by_queue if variant.settings.mode is Mode.asynchronous else ask_at_once
        return ask(self.service, endpoint, body, content_type)

    def pause(self) -> None:
        time.sleep(self.settings.poll_seconds)

    def take_down(self, endpoint: str) -> None:
        """An endpoint that is being made cannot be removed yet: EndpointError."""
        sent(lambda: self._client.delete_endpoint(EndpointName=endpoint), "could not find")

    def forget(self, variant: Variant) -> None:
        if variant.settings.mode is not Mode.batch:
            remove = self._client.delete_endpoint_config
            sent(lambda: remove(EndpointConfigName=variant.name), "could not find")
        sent(lambda: self._client.delete_model(ModelName=variant.name), "could not find")

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
            request["AsyncInferenceConfig"] = {"OutputConfig": places | encryption(self.service)}
        return request

    def _tags(self, variant: Variant) -> list[dict[str, str]]:
        tags = {**self.settings.tags, "penumo/asset": "endpoint", "penumo/version": variant.version}
        return [{"Key": key, "Value": tag_value(value)} for key, value in tags.items()]


def _environment(mode: Mode) -> dict[str, str]:
    """The container's variables: TorchServe takes what the mode takes."""
    return CONTAINER_ENVIRONMENT | {"TS_MAX_REQUEST_SIZE": str(LARGEST_MB[mode] * MB)}
