"""SageMaker's model registry, on moto: one package per version, its approval from the gates and from a rollback."""

import boto3
import pytest
from moto import mock_aws

from penumo_assets.resources.model_package import (
    CONTAINER_ENVIRONMENT,
    Approval,
    NoModelPackages,
    SageMakerModelPackages,
)
from penumo_assets.resources.profile import aws_resources

ARCHIVE = "s3://films/penumo/models/versions/1/model.tar.gz"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pytorch-inference:2.6-cpu"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        yield boto3.client("sagemaker")


def packages() -> SageMakerModelPackages:
    return SageMakerModelPackages(group="pneumonia", image=IMAGE)


def test_a_package_names_archive_image_and_what_may_be_sent(client) -> None:
    name = packages().register("1", ARCHIVE, Approval.approved, {"architecture": "resnet34"})
    found = client.describe_model_package(ModelPackageName=name)
    assert found["ModelApprovalStatus"] == "Approved"
    assert found["CustomerMetadataProperties"] == {"architecture": "resnet34"}
    assert "Not a medical device" in found["ModelPackageDescription"]
    (container,) = found["InferenceSpecification"]["Containers"]
    assert (container["Image"], container["ModelDataUrl"]) == (IMAGE, ARCHIVE)
    assert container["Environment"] == CONTAINER_ENVIRONMENT
    assert "application/dicom" in found["InferenceSpecification"]["SupportedContentTypes"]


def test_the_group_is_made_once(client) -> None:
    for version in ("1", "2"):
        packages().register(version, ARCHIVE.replace("/1/", f"/{version}/"), Approval.pending, {})
    assert len(client.list_model_package_groups()["ModelPackageGroupSummaryList"]) == 1
    assert len(client.list_model_packages(ModelPackageGroupName="pneumonia")["ModelPackageSummaryList"]) == 2


def test_the_same_request_carries_the_same_token(client, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS answers a repeated token with the package that exists; moto does not look at it."""
    tokens = []
    create = client.create_model_package
    resource = packages()
    monkeypatch.setattr(type(resource), "_client", lambda self: client)
    monkeypatch.setattr(client, "create_model_package", lambda **k: tokens.append(k["ClientToken"]) or create(**k))
    for uri in (ARCHIVE, ARCHIVE, ARCHIVE.replace("/1/", "/2/")):
        resource.register("1", uri, Approval.pending, {})
    assert tokens[0] == tokens[1] != tokens[2]
    assert all(1 <= len(token) <= 36 for token in tokens)


def test_approval_can_be_withdrawn(client) -> None:
    name = packages().register("1", ARCHIVE, Approval.approved, {})
    packages().set_approval(name, Approval.rejected, "rolled back to version 2")
    assert client.describe_model_package(ModelPackageName=name)["ModelApprovalStatus"] == "Rejected"


def test_the_embedded_profile_registers_nothing() -> None:
    assert NoModelPackages().register("1", ARCHIVE, Approval.approved, {}) is None
    with pytest.raises(RuntimeError, match="was registered elsewhere"):
        NoModelPackages().set_approval("arn:x", Approval.rejected, "")


def test_the_aws_profile_has_a_registry_where_an_inference_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENUMO_INFERENCE_IMAGE", raising=False)
    assert isinstance(aws_resources()["packages"], NoModelPackages)
    monkeypatch.setenv("PENUMO_INFERENCE_IMAGE", IMAGE)
    monkeypatch.setenv("PENUMO_MODEL_PACKAGE_GROUP", "chest")
    packages = aws_resources()["packages"]
    assert isinstance(packages, SageMakerModelPackages)
    assert (packages.image, packages.group) == (IMAGE, "chest")
