"""What follows from an instance's type: where its disk is, and which of AWS's images it runs."""

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from penumo_assets.resources.compute.spec import JobFailed

# https://github.com/aws/deep-learning-containers: torch 2.13.0, torchvision 0.28.0, Python 3.12, for jobs of all kinds.
REPOSITORY = "pytorch"
TAGS = {"cpu": "2.13.0-cpu-amzn2023-sagemaker", "gpu": "2.13.0-cu133-amzn2023-sagemaker"}
# Families with NVMe disks of their own whose name does not say so. All others have a "d" among the letters behind
# their generation (g4dn, p4de, m5d). https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/InstanceStorage.html
_LOCAL_DISK = (
    *("g5", "g6", "g6e", "gr6", "g7", "g7e"),
    *("p5", "p5e", "p5en", "p6-b200", "p6-b300", "p6e-gb200"),
    *("trn1", "trn1n", "trn2"),
    *("i3", "i3en", "i4i", "i7ie"),
)


def family(instance_type: str) -> str:
    """``g4dn`` of ``ml.g4dn.xlarge``."""
    return instance_type.removeprefix("ml.").partition(".")[0]


def has_gpu(instance_type: str) -> bool:
    """Whether the type has NVIDIA GPUs, which CUDA reaches."""
    return family(instance_type)[:1] in {"g", "p"}


def has_local_disk(instance_type: str) -> bool:
    """Whether jobs get the instance's own NVMe disk, which its hardware encrypts, instead of an EBS volume.

    SageMaker refuses a VolumeKmsKeyId for such a type (ResourceConfig in its API reference).
    """
    name = family(instance_type)
    letters = re.match(r"[a-z]+\d+([a-z]*)", name)
    return name in _LOCAL_DISK or (letters is not None and "d" in letters[1])


def default_image(region: str, instance_type: str) -> str:
    """URI of AWS's PyTorch image, in the registry that AWS keeps in the region.

    The registry's account and domain come from the sagemaker package's table, whose newest entry is an older image.
    The table is read directly: importing the package's ``image_uris`` takes two seconds, which the first job of every
    run would pay. The tests hold the answers against that module's, region by region.

    Raises
    ------
    JobFailed
        If AWS has no such image for the region or for this kind of instance.
    """
    registry = _registries().get(region)
    if registry is None or family(instance_type).startswith(("trn", "inf")):
        where = f"region {region}" if registry is None else f"instances of type {instance_type}"
        raise JobFailed(f"AWS has no PyTorch image for {where}: set PENUMO_IMAGE")
    tag = TAGS["gpu" if has_gpu(instance_type) else "cpu"]
    return f"{registry}.dkr.ecr.{region}.{_domain(region)}/{REPOSITORY}:{tag}"


@cache
def _registries() -> dict[str, str]:
    """The account of AWS's registry by region."""
    package = find_spec("sagemaker")  # a namespace: finding it imports nothing
    if package is None or not package.submodule_search_locations:
        raise JobFailed("the package sagemaker is not installed: install it, or set PENUMO_IMAGE")
    folders = [Path(location) for location in package.submodule_search_locations]
    core = next(folder / "core" for folder in folders if (folder / "core").is_dir())
    table: dict[str, Any] = json.loads((core / "image_uri_config" / "pytorch.json").read_text(encoding="utf-8"))
    *_, newest = table["training"]["versions"].values()
    return newest["registries"]


@cache
def _domain(region: str) -> str:
    """The domain of the region's partition, from botocore's own data."""
    import botocore.loaders
    import botocore.regions

    data = botocore.loaders.create_loader().load_data("endpoints")
    return botocore.regions.EndpointResolver(data).construct_endpoint("ecr", region)["dnsSuffix"]
