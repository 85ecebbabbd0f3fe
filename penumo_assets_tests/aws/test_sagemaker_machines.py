"""Instance types: every one that the API names is told apart, and every region gets the image that AWS names."""

import subprocess
import sys
from typing import Any

import pytest

from penumo_assets.resources.compute.sagemaker.machines import TAGS, _registries, default_image, family, has_local_disk
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


@pytest.mark.slow
def test_the_registry_is_the_one_that_the_sagemaker_package_finds() -> None:
    from sagemaker.core import image_uris

    def known(region: str, instance_type: str) -> str:
        """Account and domain of the newest image that the package knows: ours is newer than its table."""
        uri = image_uris.retrieve(
            "pytorch", region, version="2.10.0", py_version="py313", instance_type=instance_type, image_scope="training"
        )
        return uri.partition("/")[0]

    regions = list(_registries())
    assert {"eu-central-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1"} <= set(regions)
    for region in regions:
        for instance_type, kind in (("ml.m5.xlarge", "cpu"), ("ml.g5.xlarge", "gpu"), ("ml.p4d.24xlarge", "gpu")):
            assert default_image(region, instance_type) == f"{known(region, instance_type)}/pytorch:{TAGS[kind]}"


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


def test_finding_the_image_does_not_import_the_sagemaker_package() -> None:
    code = (
        "import sys; from penumo_assets.resources.compute.sagemaker.machines import default_image; "
        "default_image('eu-central-1', 'ml.m5.xlarge'); sys.exit('sagemaker.core' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
