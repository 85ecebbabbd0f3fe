"""SageMaker's model registry: a champion as a model package, its approval from the gates.

MLflow's registry names the champion everywhere; on AWS a model package is what an endpoint or a deployment pipeline
takes. The embedded profile has none: `NoModelPackages`.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from dagster import ConfigurableResource
from pydantic import Field

# TorchServe takes 6.5 MB of a request unless told otherwise; a film of 2000x2000 pixels of 16 bits has 8 MB. A
# real-time endpoint's own limit stays below this; asynchronous endpoints and batch transform reach it.
_LARGEST_BYTES = 100 * 10**6
CONTAINER_ENVIRONMENT = {
    "TS_MAX_REQUEST_SIZE": str(_LARGEST_BYTES),
    "TS_MAX_RESPONSE_SIZE": str(_LARGEST_BYTES),
    "TS_DEFAULT_RESPONSE_TIMEOUT": "120",  # seconds
}
CONTENT_TYPES = ["application/dicom", "image/png", "image/jpeg", "application/x-npz"]


class Approval(StrEnum):
    """SageMaker's approval status of a model package."""

    approved = "Approved"
    pending = "PendingManualApproval"
    rejected = "Rejected"


class ModelPackages(ConfigurableResource):
    """Where a champion is registered beside MLflow."""

    group: str = Field(default="pneumonia-classifier", description="Name of the models' group in that registry.")

    @abstractmethod
    def register(self, version: str, archive_uri: str, approval: Approval, facts: Mapping[str, str]) -> str | None:
        """Register a version's serving archive once; what names it there, or None where there is no such registry."""

    @abstractmethod
    def approval(self, package: str) -> Approval:
        """The approval of what `register` named, as it stands now."""

    @abstractmethod
    def set_approval(self, package: str, approval: Approval, reason: str) -> None:
        """Change the approval of what `register` named."""


class NoModelPackages(ModelPackages):
    """No registry beside MLflow."""

    def register(self, version: str, archive_uri: str, approval: Approval, facts: Mapping[str, str]) -> str | None:
        return None

    def approval(self, package: str) -> Approval:
        raise RuntimeError(f"{package} was registered elsewhere: its approval stands there")

    def set_approval(self, package: str, approval: Approval, reason: str) -> None:
        raise RuntimeError(f"{package} was registered elsewhere: change its approval there")


class SageMakerModelPackages(ModelPackages):
    """One model package group; boto3 alone, whose calls and errors are SageMaker's own."""

    image: str = Field(description="URI of the inference container, e.g. AWS's PyTorch inference image.")
    region: str = Field(default="", description="AWS region; empty: the environment decides.")
    instance_types: list[str] = Field(
        default=["ml.m5.large", "ml.g4dn.xlarge"], description="Instances the package may be deployed to."
    )

    def register(self, version: str, archive_uri: str, approval: Approval, facts: Mapping[str, str]) -> str | None:
        """Create the group if need be, and one package for this archive."""
        client = self._client()
        self._ensure_group(client)
        package = client.create_model_package(
            ModelPackageGroupName=self.group,
            ModelPackageDescription=f"penumo_assets, registry version {version}. Not a medical device.",
            ModelApprovalStatus=approval.value,
            InferenceSpecification={
                "Containers": [
                    {"Image": self.image, "ModelDataUrl": archive_uri, "Environment": CONTAINER_ENVIRONMENT}
                ],
                "SupportedContentTypes": CONTENT_TYPES,
                "SupportedResponseMIMETypes": ["application/json"],
                "SupportedRealtimeInferenceInstanceTypes": self.instance_types,
                "SupportedTransformInstanceTypes": self.instance_types,
            },
            CustomerMetadataProperties={name: value[:256] for name, value in facts.items()},
            # The same request again, after a crash or a lost answer, makes no second package.
            ClientToken=hashlib.sha256(f"{self.group}\0{archive_uri}".encode()).hexdigest()[:36],
        )
        return package["ModelPackageArn"]

    def approval(self, package: str) -> Approval:
        return Approval(self._client().describe_model_package(ModelPackageName=package)["ModelApprovalStatus"])

    def set_approval(self, package: str, approval: Approval, reason: str) -> None:
        self._client().update_model_package(
            ModelPackageArn=package, ModelApprovalStatus=approval.value, ApprovalDescription=reason[:1024]
        )

    def _ensure_group(self, client: Any) -> None:
        from botocore.exceptions import ClientError

        try:
            client.describe_model_package_group(ModelPackageGroupName=self.group)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
                raise
            client.create_model_package_group(
                ModelPackageGroupName=self.group, ModelPackageGroupDescription="Pneumonia on frontal chest X-rays."
            )

    def _client(self) -> Any:
        import boto3  # the embedded profile does not need it

        return boto3.client("sagemaker", region_name=self.region or None)
