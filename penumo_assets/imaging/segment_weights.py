"""The weights of the lung U-Net: read, checked and folded, before anything is segmented with them."""

import hashlib
import json
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from penumo_assets.models.lung_unet import LungUNet
from penumo_assets.models.safetensors_header import refuse_huge_header

BUNDLED = Path(__file__).parents[1] / "models" / "weights" / "lung_unet.safetensors"


class WeightsError(ValueError):
    """Segmenter weights that cannot be used: names the file, what was expected and what was found."""


def load_lung_unet(path: Path, expected_sha256: str | None = None) -> tuple[LungUNet, str]:
    """A `LungUNet` in eval mode with the weights in ``path``, and the file's SHA-256; see `LungSegmenter`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: segmenter weights cannot be read ({error.strerror})") from error
    return parse_lung_unet(data, str(path), expected_sha256)


def parse_lung_unet(data: bytes, named: str, expected_sha256: str | None = None) -> tuple[LungUNet, str]:
    """`load_lung_unet` from a file's bytes; ``named`` is how errors call it."""
    digest = hashlib.sha256(data).hexdigest()
    if expected_sha256 is not None and digest != expected_sha256.lower():
        raise WeightsError(f"{named}: expected weights with SHA-256 {expected_sha256}, found {digest}")
    try:
        refuse_huge_header(data)
        tensors = load(data)
    except SafetensorError as error:
        raise WeightsError(f"{named}: expected a safetensors file of LungUNet weights ({error})") from error
    model = LungUNet()
    _check_tensors(named, model.state_dict(), tensors)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    return model.eval(), digest


def _check_tensors(named: str, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    wanted = {name for name in expected if not name.endswith("num_batches_tracked")}
    if missing := sorted(wanted - set(found)):
        raise WeightsError(f"{named}: expected LungUNet weights, but {len(missing)} tensors are missing: {missing[:3]}")
    if extra := sorted(set(found) - set(expected)):
        raise WeightsError(f"{named}: expected LungUNet weights, but {len(extra)} tensors are unknown: {extra[:3]}")
    for name in sorted(wanted):
        shapes = tuple(expected[name].shape), tuple(found[name].shape)
        if shapes[0] != shapes[1]:
            raise WeightsError(f"{named}: tensor {name}: expected shape {shapes[0]}, found {shapes[1]}")
        if not torch.isfinite(found[name].float()).all():
            raise WeightsError(f"{named}: tensor {name}: expected finite values, found NaN or infinity")


def fold_batch_norms(model: LungUNet) -> LungUNet:
    """Fold every batch normalisation into the convolution before it, in place; for inference only."""
    for module in list(model.modules()):
        if isinstance(module, torch.nn.Sequential):
            for index in range(len(module) - 1):
                convolution, norm = module[index], module[index + 1]
                if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                    module[index] = fuse_conv_bn_eval(convolution, norm)
                    module[index + 1] = torch.nn.Identity()
    return model


@cache
def bundled_facts() -> dict:
    """What is known of the bundled weights: ``sha256`` and the facts of their training."""
    return json.loads(BUNDLED.with_suffix(".json").read_text(encoding="utf-8"))
