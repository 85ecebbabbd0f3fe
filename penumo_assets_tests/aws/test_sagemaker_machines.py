"""Instance types: every one that the API names is told apart, and every region gets the image that AWS names."""

from typing import Any

import pytest

from penumo_assets.resources.compute.sagemaker.machines import TAGS, default_image, family, has_local_disk
from penumo_assets.resources.compute.spec import JobFailed
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
    assert default_image(region, "ml.p4d.24xlarge") == f"{registry}/pytorch:{TAGS['gpu']}"


def test_the_default_image_is_aws_s_by_its_private_address() -> None:
    account = "763104351884.dkr.ecr.eu-central-1.amazonaws.com"
    assert default_image("eu-central-1", "ml.m5.xlarge") == f"{account}/pytorch:2.13.0-cpu-amzn2023-sagemaker"
    assert default_image("eu-central-1", "ml.g5.xlarge") == f"{account}/pytorch:2.13.0-cu133-amzn2023-sagemaker"


@pytest.mark.parametrize(
    ("place", "named"), [(("mars-1", "ml.m5.xlarge"), "region mars-1"), (("eu-central-1", "ml.trn1.2xlarge"), "trn1")]
)
def test_where_aws_has_no_image_one_is_asked_for(place: Any, named: str) -> None:
    with pytest.raises(JobFailed, match=rf"{named}.*set PENUMO_IMAGE"):
        default_image(*place)
