"""SageMaker's API as one installation reaches it: clients, region, image, and what an error in an answer means."""

import os
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from penumo_assets.resources.compute.sagemaker.machines import default_image, registry_of
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.spec import JobFailed, JobSpec
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.storage.root import Storage

# The request failed although it is right: the same request may succeed later.
TRANSIENT_ERRORS = (
    "ThrottlingException",
    "CapacityError",
    "InternalServerError",
    "InternalFailure",
    "ServiceUnavailable",
)


class QuotaFull(JobFailed):
    """Other jobs of the account use the quota up; when they have ended, the same request succeeds."""


class Denied(JobFailed):
    """The service refuses to describe a job: the role may not, or the job is so new that it is not known yet."""


class Service:
    """What jobs are made and followed with: an installation's settings, its store, and clients of AWS.

    Raises
    ------
    JobFailed
        If a setting is missing; one message names every missing variable.
    """

    def __init__(self, settings: SageMakerSettings, storage: Storage) -> None:
        self.settings = settings
        self._clients: dict[str, Any] = {}
        if missing := self._missing(storage.root):
            raise JobFailed("jobs cannot run on SageMaker; set " + "; ".join(missing))
        self.store: ObjectStore = storage.store

    @cached_property
    def region(self) -> str:
        """The region the jobs run in; empty if nothing names one."""
        # boto3 itself does not read AWS_REGION, which is what ECS and Lambda set.
        return boto3.Session().region_name or os.environ.get("AWS_REGION", "")

    def client(self, service: str) -> Any:
        """A client that retries throttled and failed requests with jitter and adapts its rate."""
        if service not in self._clients:
            config = Config(retries={"mode": "adaptive", "max_attempts": 10})
            self._clients[service] = boto3.client(service, region_name=self.region, config=config)
        return self._clients[service]

    def image_uri(self, spec: JobSpec) -> str:
        """The image of the settings, or AWS's own for the region and the instance type."""
        return self.settings.image or default_image(self._registry, self.settings.instance_type(spec))

    @cached_property
    def _registry(self) -> str:
        """AWS's registry in the region, remembered in the store: every run is a process, and looking it up slow."""
        key = f"code/registries/{self.region}"
        try:
            return self.store.read(key).decode()
        except ObjectMissing:
            found = registry_of(self.region)
        self.store.write(key, found.encode())
        return found

    def _missing(self, root: str) -> list[str]:
        missing, settings = [], self.settings
        if not root.startswith("s3://"):
            missing.append("PENUMO_ROOT (s3://bucket/prefix, where jobs read and write)")
        if not settings.role_arn:
            missing.append("PENUMO_SAGEMAKER_ROLE (ARN of the role that jobs run as)")
        if not self.region:
            missing.append("AWS_DEFAULT_REGION")
        if boto3.Session().get_credentials() is None:
            missing.append("AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (no credentials found)")
        if bool(settings.subnets) is not bool(settings.security_group_ids):
            missing.append("PENUMO_SUBNETS and PENUMO_SECURITY_GROUPS (both, or neither)")
        return missing


def described(name: str, request: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """The answer to a request for a description; None if there is no job of this name.

    Raises
    ------
    JobFailed
        If it cannot be described. The job, if there is one, goes on.
    """
    try:
        return request()
    except ClientError as error:
        code, text = _code(error), _text(error).lower()
        if code == "ResourceNotFound":
            return None
        if code == "ValidationException" and ("not found" in text or "could not find" in text):
            return None
        message = f"SageMaker does not describe job {name}: {code}"
        if code == "AccessDeniedException":
            raise Denied(f"{message}: the orchestrator's policy (docs/aws/iam_orchestrator.json) allows it") from error
        raise JobFailed(message, transient=code in TRANSIENT_ERRORS) from error
    except BotoCoreError as error:
        raise JobFailed(f"SageMaker does not answer: {type(error).__name__}", transient=True) from error


def created(name: str, request: Callable[[], Any]) -> bool:
    """Send a request that creates a job; False if another process has created it first.

    Raises
    ------
    JobFailed
        If SageMaker refuses; ``transient`` if it may accept the same request later.
    """
    try:
        request()
    except ClientError as error:
        code, text = _code(error), _text(error)
        if code == "ResourceInUse":
            return False
        message = f"SageMaker refuses job {name}: {code}: {text}"
        if "Cannot find repository" in text:
            message += " (PENUMO_IMAGE names the image; docs/aws/iam_job_role.json lets the role pull it)"
        if code == "ResourceLimitExceeded":
            raise quota_failure(message) from error
        raise JobFailed(message, transient=code in TRANSIENT_ERRORS) from error
    except ParamValidationError as error:
        raise JobFailed(f"job {name} has settings that SageMaker does not take: {error}") from error
    except BotoCoreError as error:
        raise JobFailed(f"SageMaker does not answer: {type(error).__name__}", transient=True) from error
    return True


def quota_failure(message: str) -> JobFailed:
    """What a full quota means: QuotaFull if other jobs use it up, final if no end of theirs makes room for this one.

    SageMaker's text: "... service limit 'ml.g5.xlarge for training job usage' is 4 Instances, with current utilization
    of 3 Instances and a request delta of 2 Instances."
    """
    limit = re.search(r"is (\d+) Instance", message)
    delta = re.search(r"delta of (\d+) Instance", message)
    if limit and int(limit[1]) < (int(delta[1]) if delta else 1):
        return JobFailed(
            f"{message} Ask for a higher one in Service Quotas (AWS's console), or choose another instance"
        )
    return QuotaFull(message, transient=True)


def stopped(request: Callable[[], Any]) -> None:
    """Send a request that stops a job, which may have ended meanwhile."""
    try:
        request()
    except ClientError as error:
        if _code(error) not in {"ResourceNotFound", "ValidationException"}:
            raise


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "unknown")


def _text(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Message", "")
