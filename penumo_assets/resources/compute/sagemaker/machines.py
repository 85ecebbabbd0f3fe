"""What follows from an instance's type: where its disk is, and which of AWS's images it runs."""

import re
from functools import cache

from penumo_assets.resources.compute.spec import JobFailed

# https://github.com/aws/deep-learning-containers: torch 2.13.0, torchvision 0.28.0, Python 3.12, for jobs of all kinds.
REPOSITORY = "pytorch"
TAGS = {"cpu": "2.13.0-cpu-amzn2023-sagemaker", "gpu": "2.13.0-cu133-amzn2023-sagemaker"}
# One that the sagemaker package's table has in every region, to find the registry by.
KNOWN_IMAGE = {"version": "2.10.0", "py_version": "py313", "instance_type": "ml.m5.xlarge", "image_scope": "training"}
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

    The sagemaker package knows the registry's account and domain; the newest image in its table is an older one.

    Raises
    ------
    JobFailed
        If AWS has no such image for the region or for this kind of instance.
    """
    if family(instance_type).startswith(("trn", "inf")):
        raise JobFailed(f"AWS has no PyTorch image for instances of type {instance_type}: set PENUMO_IMAGE")
    return f"{_registry(region)}/{REPOSITORY}:{TAGS['gpu' if has_gpu(instance_type) else 'cpu']}"


@cache
def _registry(region: str) -> str:
    """Host of AWS's registry in a region."""
    try:
        from sagemaker.core import image_uris  # 1.5 s, which an installation with an image of its own does not pay
    except ModuleNotFoundError:
        raise JobFailed("the package sagemaker is not installed: install it, or set PENUMO_IMAGE") from None
    try:
        known = image_uris.retrieve("pytorch", region, **KNOWN_IMAGE)
    except ValueError as error:
        raise JobFailed(f"AWS has no PyTorch image for region {region}: set PENUMO_IMAGE") from error
    return known.partition("/")[0]
