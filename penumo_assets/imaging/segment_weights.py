"""The weights of the lung U-Net: read and checked before anything is segmented with them. No torch is loaded."""

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from penumo_assets.models.safetensors_header import refuse_huge_header

BUNDLED = Path(__file__).parents[1] / "models" / "weights" / "lung_unet.safetensors"
_NOT_WEIGHTS = "num_batches_tracked"  # ends what only training needs
Tensors = dict[str, np.ndarray]


class WeightsError(ValueError):
    """Segmenter weights that cannot be used: names the file, what was expected and what was found."""


def read_weights(path: Path, expected_sha256: str | None = None) -> tuple[Tensors, str]:
    """The float32 tensors of `LungUNet` in ``path``, and the file's SHA-256; see `LungSegmenter`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: segmenter weights cannot be read ({error.strerror})") from error
    return parse_weights(data, str(path), expected_sha256)


def parse_weights(data: bytes, named: str, expected_sha256: str | None = None) -> tuple[Tensors, str]:
    """`read_weights` from a file's bytes; ``named`` is how errors call it."""
    digest = hashlib.sha256(data).hexdigest()
    if expected_sha256 is not None and digest != expected_sha256.lower():
        raise WeightsError(f"{named}: expected weights with SHA-256 {expected_sha256}, found {digest}")
    try:
        refuse_huge_header(data)
        tensors = {name: tensor for name, tensor in load(data).items() if not name.endswith(_NOT_WEIGHTS)}
    except SafetensorError as error:
        raise WeightsError(f"{named}: expected a safetensors file of LungUNet weights ({error})") from error
    except KeyError as error:
        raise WeightsError(f"{named}: expected weights of float16 or float32, found {error}") from error
    _check_tensors(named, tensors)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}, digest


def _check_tensors(named: str, found: Tensors) -> None:
    expected = _expected_shapes()
    if missing := sorted(expected.keys() - found.keys()):
        raise WeightsError(f"{named}: expected LungUNet weights, but {len(missing)} tensors are missing: {missing[:3]}")
    if extra := sorted(found.keys() - expected.keys()):
        raise WeightsError(f"{named}: expected LungUNet weights, but {len(extra)} tensors are unknown: {extra[:3]}")
    for name, shape in sorted(expected.items()):
        if found[name].shape != shape:
            raise WeightsError(f"{named}: tensor {name}: expected shape {shape}, found {found[name].shape}")
        if not np.isfinite(found[name]).all():
            raise WeightsError(f"{named}: tensor {name}: expected finite values, found NaN or infinity")


@cache
def _expected_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the one architecture there is, as the bundled file has them."""
    with safe_open(BUNDLED, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@cache
def bundled_facts() -> dict:
    """What is known of the bundled weights: ``sha256`` and the facts of their training."""
    return json.loads(BUNDLED.with_suffix(".json").read_text(encoding="utf-8"))
