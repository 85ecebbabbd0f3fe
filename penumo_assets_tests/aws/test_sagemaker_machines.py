"""Instance types: every one that the API names is told apart, and every region gets the image that AWS names."""

import ast

import pytest

from penumo_assets.resources.compute.sagemaker.machines import (
    TAGS,
    default_image,
    family,
    has_local_disk,
    network_variables,
    registry_of,
)
from penumo_assets.resources.compute.spec import JobFailed
from penumo_assets_tests.aws import programs
from penumo_assets_tests.aws.emulator.rules import _LOCAL_STORAGE, service_model

TYPES = sorted(
    {
        name
        for shape in ("TrainingInstanceType", "ProcessingInstanceType")
        for name in service_model().shape_for(shape).enum
    }
)


@pytest.mark.parametrize(
    ("instance_type", "local"),
    [
        ("ml.g4dn.xlarge", True),
        ("ml.p4d.24xlarge", True),
        ("ml.p4de.24xlarge", True),
        ("ml.p3dn.24xlarge", True),
        ("ml.p5.48xlarge", True),
        ("ml.g5.xlarge", True),
        ("ml.g6e.xlarge", True),
        ("ml.trn1.32xlarge", True),
        ("ml.r5d.large", True),
        ("ml.p6-b200.48xlarge", True),
        ("ml.m5.xlarge", False),
        ("ml.c5n.xlarge", False),
        ("ml.m7i-flex.large", False),
        ("ml.p3.2xlarge", False),
        ("ml.t3.medium", False),
    ],
)
def test_where_an_instance_has_its_disk(instance_type: str, local: bool) -> None:
    assert has_local_disk(instance_type) is local


def test_the_rule_and_the_table_agree_on_every_type_of_the_api() -> None:
    assert len(TYPES) > 200
    assert [name for name in TYPES if has_local_disk(name) is not (family(name) in _LOCAL_STORAGE)] == []


def test_hosts_meet_on_the_network_that_aws_s_own_launchers_use() -> None:
    """Of every type that has GPUs; Trainium has another library than NCCL."""
    (source,) = programs.required().glob("lib/python*/site-packages/sagemaker_training/__init__.py")
    lists = {
        node.targets[0].id: set(ast.literal_eval(node.value))
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.List)
    }
    for name in (name for name in TYPES if not name.startswith("ml.trn")):
        expected = {"FI_PROVIDER": "efa", "NCCL_PROTO": "simple"} if name in lists["SM_EFA_NCCL_INSTANCES"] else {}
        expected |= {"FI_EFA_USE_DEVICE_RDMA": "1"} if name in lists["SM_EFA_RDMA_INSTANCES"] else {}
        assert network_variables(name) == expected, name


@pytest.mark.parametrize(
    ("region", "registry"),
    [
        ("us-east-1", "763104351884.dkr.ecr.us-east-1.amazonaws.com"),
        ("us-gov-west-1", "442386744353.dkr.ecr.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn"),
        ("eusc-de-east-1", "204133271717.dkr.ecr.eusc-de-east-1.amazonaws.eu"),
    ],
)
def test_each_partition_has_a_registry_and_a_domain_of_its_own(region: str, registry: str) -> None:
    assert registry_of(region) == registry
    assert default_image(registry, "ml.p4d.24xlarge") == f"{registry}/pytorch:{TAGS['gpu']}"


def test_the_default_image_is_aws_s_by_its_private_address() -> None:
    registry = registry_of("eu-central-1")
    assert default_image(registry, "ml.m5.xlarge") == f"{registry}/pytorch:2.13.0-cpu-amzn2023-sagemaker"
    assert default_image(registry, "ml.g5.xlarge") == f"{registry}/pytorch:2.13.0-cu133-amzn2023-sagemaker"


def test_where_aws_has_no_image_one_is_asked_for() -> None:
    with pytest.raises(JobFailed, match=r"region mars-1.*set PENUMO_IMAGE"):
        registry_of("mars-1")
    with pytest.raises(JobFailed, match=r"trn1.*set PENUMO_IMAGE"):
        default_image("763104351884.dkr.ecr.eu-central-1.amazonaws.com", "ml.trn1.2xlarge")
