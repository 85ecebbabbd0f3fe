"""What follows from an instance's type: where its disk is, and which of AWS's images it runs."""

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from penumo_assets.resources.compute.spec import JobFailed

FRAMEWORK_VERSION, PYTHON_VERSION = "2.9.0", "py312"
# Families with NVMe disks of their own whose name does not say so. All others have a "d" among the letters behind
# their generation (g4dn, p4de, m5d). https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/InstanceStorage.html
_LOCAL_DISK = (
    *("g5", "g6", "g6e", "gr6", "g7", "g7e"),
    *("p5", "p5e", "p5en", "p6-b200", "p6-b300", "p6e-gb200"),
    *("trn1", "trn1n", "trn2"),
    *("i3", "i3en", "i4i", "i7ie"),
)
# Domains of the partitions that have one of their own: China, the isolated regions, the sovereign cloud.
_DOMAINS = {
    "aws-cn": "amazonaws.com.cn",
    "aws-iso": "c2s.ic.gov",
    "aws-iso-b": "sc2s.sgov.gov",
    "aws-iso-e": "cloud.adc-e.uk",
    "aws-iso-f": "csp.hci.ic.gov",
    "aws-eusc": "amazonaws.eu",
}


def family(instance_type: str) -> str:
    """``g4dn`` of ``ml.g4dn.xlarge``."""
    return instance_type.removeprefix("ml.").partition(".")[0]


def has_local_disk(instance_type: str) -> bool:
    """Whether jobs get the instance's own NVMe disk, which its hardware encrypts, instead of an EBS volume.

    SageMaker refuses a VolumeKmsKeyId for such a type (ResourceConfig in its API reference).
    """
    name = family(instance_type)
    letters = re.match(r"[a-z]+\d+([a-z]*)", name)
    return name in _LOCAL_DISK or (letters is not None and "d" in letters[1])


def training_image(region: str, instance_type: str) -> str:
    """URI of AWS's PyTorch training image.

    From the table of the sagemaker package, read directly: importing its ``image_uris`` takes two seconds, which the
    first job of every run would pay. The tests hold the answers against that module's, region by region.

    Raises
    ------
    JobFailed
        If AWS has no such image for the region or for this kind of instance.
    """
    table = _image_table()
    processor = "gpu" if family(instance_type)[:1] in {"g", "p"} else "cpu"
    registry = table["registries"].get(region)
    if registry is None or family(instance_type).startswith(("trn", "inf")):
        where = f"region {region}" if registry is None else f"instances of type {instance_type}"
        raise JobFailed(f"AWS has no PyTorch {FRAMEWORK_VERSION} training image for {where}: set PENUMO_IMAGE")
    tag = f"{FRAMEWORK_VERSION}-{processor}-{PYTHON_VERSION}"
    return f"{registry}.dkr.ecr.{region}.{_domain(region)}/{table['repository']}:{tag}"


@cache
def _image_table() -> dict[str, Any]:
    package = find_spec("sagemaker")  # a namespace: finding it imports nothing
    if package is None or not package.submodule_search_locations:
        raise JobFailed("the package sagemaker is not installed: install it, or set PENUMO_IMAGE")
    folders = [Path(location) for location in package.submodule_search_locations]
    core = next(folder / "core" for folder in folders if (folder / "core").is_dir())
    table = json.loads((core / "image_uri_config" / "pytorch.json").read_text(encoding="utf-8"))
    return table["training"]["versions"][FRAMEWORK_VERSION]


@cache
def _domain(region: str) -> str:
    import boto3

    return _DOMAINS.get(boto3.Session().get_partition_for_region(region), "amazonaws.com")
