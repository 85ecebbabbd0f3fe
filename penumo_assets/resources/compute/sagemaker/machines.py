"""What follows from an instance's type: its disk, its network, and which of AWS's images it runs."""

import re

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
# Types whose GPUs talk to other hosts through an Elastic Fabric Adapter, by size, and families that do so without the
# processor: the lists of https://github.com/aws/sagemaker-training-toolkit, which its own launchers go by.
_EFA = (
    *("g4dn.8xlarge", "g4dn.12xlarge", "g5.48xlarge", "p3dn.24xlarge", "p4d.24xlarge", "p4de.24xlarge"),
    *("p5.48xlarge", "p5e.48xlarge", "p6e-gb200.36xlarge"),
)
_RDMA_FAMILIES = ("p4d", "p4de", "p5", "p5e", "p6e-gb200")


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


def network_variables(instance_type: str) -> dict[str, str]:
    """What makes NCCL use the network that the hosts of one training share, where it is not plain TCP."""
    if instance_type.removeprefix("ml.") not in _EFA:
        return {}
    # The adapter delivers out of order, which NCCL's other protocols do not bear.
    variables = {"FI_PROVIDER": "efa", "NCCL_PROTO": "simple"}
    return variables | ({"FI_EFA_USE_DEVICE_RDMA": "1"} if family(instance_type) in _RDMA_FAMILIES else {})


def default_image(registry: str, instance_type: str) -> str:
    """URI of AWS's PyTorch image in the registry that AWS keeps in a region.

    Raises
    ------
    JobFailed
        If AWS has no such image for this kind of instance.
    """
    if family(instance_type).startswith(("trn", "inf")):
        raise JobFailed(f"AWS has no PyTorch image for instances of type {instance_type}: set PENUMO_IMAGE")
    return f"{registry}/{REPOSITORY}:{TAGS['gpu' if has_gpu(instance_type) else 'cpu']}"


def registry_of(region: str) -> str:
    """Host of AWS's registry in a region.

    The sagemaker package knows its account and domain; the newest image in its table is an older one.

    Raises
    ------
    JobFailed
        If AWS has no such images in the region.
    """
    try:
        from sagemaker.core import image_uris  # takes 1.5 s
    except ModuleNotFoundError:
        raise JobFailed("the package sagemaker is not installed: install it, or set PENUMO_IMAGE") from None
    try:
        known = image_uris.retrieve("pytorch", region, **KNOWN_IMAGE)
    except ValueError as error:
        raise JobFailed(f"AWS has no PyTorch image for region {region}: set PENUMO_IMAGE") from error
    return known.partition("/")[0]
