"""From a letterboxed gray X-ray to a lung mask, and whether that mask can be believed.

`LungSegmenter` turns images into probabilities, `clean_mask` probabilities into a mask, `assess_mask`
a mask into a verdict. Everything is in 512x512 letterbox coordinates (`penumo_assets.imaging.letterbox`).
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from penumo_assets.configs.prepare import PlausibilityConfig
from penumo_assets.imaging.formats.decoded import eight_bit
from penumo_assets.models.lung_unet import LungUNet, is_negative, standardise, to_device
from penumo_assets.models.safetensors_header import refuse_huge_header

SIZE = 512
BATCH = 8
BUNDLED = Path(__file__).parents[1] / "models" / "weights" / "lung_unet.safetensors"
LOOKS = (192, 224)  # sides in pixels; the mean of two looks outlines better than either (docs/model_card_lung_unet.md)
MIN_CONTRAST = 4  # gray levels: an image that varies less is constant but for noise
MIN_COMPONENT = 0.1  # a second component below this share of the first is a fragment, not the other lung


class WeightsError(ValueError):
    """Segmenter weights that cannot be used: names the file, what was expected and what was found."""


class LungSegmenter:
    """The lung U-Net with its weights, ready for batches of images on CPU or GPU.

    Parameters
    ----------
    weights : Path, optional
        A safetensors file of the same architecture; the bundled weights by default.
    expected_sha256 : str, optional
        Refuse the file unless its SHA-256 is this. The bundled file is always checked.
    threads : int, optional
        Threads of torch's CPU kernels, for the whole process.

    Attributes
    ----------
    digest : str
        SHA-256 of the weights file.

    Raises
    ------
    WeightsError
        If the file is missing, not safetensors, has another digest, other tensors or other shapes
        than `LungUNet`, or holds values that are not finite.
    """

    def __init__(
        self, weights: Path | None = None, *, expected_sha256: str | None = None, threads: int | None = None
    ) -> None:
        if weights is None:
            expected_sha256 = expected_sha256 or bundled_facts()["sha256"]
        path = weights or BUNDLED
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, self.digest = load_lung_unet(path, expected_sha256)
        self.model = to_device(fold_batch_norms(model), self.device)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Probability that each pixel is lung.

        Parameters
        ----------
        batch : ndarray
            (N, 512, 512) uint8 letterboxed gray images; N may be 0.

        Returns
        -------
        ndarray
            (N, 512, 512) float32 in [0, 1], never NaN. An image without any content (black, constant) gets 0
            everywhere.

        Raises
        ------
        ValueError
            If the shape or dtype is another.
        """
        check_batch(batch)
        result = np.zeros(batch.shape, np.float32)
        filled = [i for i, image in enumerate(batch) if has_content(image)]
        for start in range(0, len(filled), BATCH):
            chosen = filled[start : start + BATCH]
            result[chosen] = self._probabilities(batch[chosen])
        return result

    @torch.inference_mode()
    def _probabilities(self, images: np.ndarray) -> np.ndarray:
        """(N, 512, 512) probabilities from two looks at each image, in its right polarity."""
        coarse, fine = (standardise(self._reduced(images, side)) for side in LOOKS)
        first = self.model.features(coarse)
        negative = is_negative(coarse, first)
        if negative.any():
            first[negative] = self.model.features(-coarse[negative])
            fine[negative] = -fine[negative]
        second = self.model.features(fine.flip(3)).flip(3)
        logits = (_resized(first, second.shape[-1]) + second) / 2
        # Finite weights can still overflow; undefined counts as not lung.
        return _resized(logits.nan_to_num(-30.0, 30.0, -30.0), SIZE).sigmoid_()[:, 0].cpu().numpy()

    def _reduced(self, images: np.ndarray, side: int) -> Tensor:
        # An area average as in the model, but on bytes: an eighth of the time and a quarter of the memory.
        small = np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])
        tensor = torch.from_numpy(small[:, None]).to(self.device, torch.float32)
        return tensor.contiguous(memory_format=torch.channels_last)


def _resized(logits: Tensor, side: int) -> Tensor:
    return torch.nn.functional.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)


def check_batch(batch: np.ndarray) -> None:
    """Raise ValueError unless ``batch`` is (N, 512, 512) uint8."""
    if batch.ndim != 3 or batch.shape[1:] != (SIZE, SIZE) or batch.dtype != np.uint8:
        raise ValueError(f"expected (N, {SIZE}, {SIZE}) uint8 images, got {batch.shape} {batch.dtype}")


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


def has_content(image: np.ndarray) -> bool:
    """Whether a (H, W) uint8 image varies along some row and some column; constant bars alone do not."""
    rows, columns = np.ptp(image, axis=1), np.ptp(image, axis=0)
    return int(min(rows.max(), columns.max())) > MIN_CONTRAST


def segmentable(square: np.ndarray, on_gray: bool) -> np.ndarray:
    """(512, 512[, 3]) uint8 or uint16 -> (K, 512, 512) uint8 planes: the luminance, or each colour channel."""
    square = eight_bit(square)
    if square.ndim == 2:
        return square[None]
    return cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)[None] if on_gray else np.moveaxis(square, 2, 0)


def clean_mask(probability: np.ndarray, content: tuple[slice, slice], threshold: float = 0.5) -> np.ndarray:
    """The two largest components above ``threshold``, holes filled, nothing outside the content.

    Parameters
    ----------
    probability : ndarray
        (512, 512) float, as `LungSegmenter.predict` returns for one image.
    content : tuple of slice
        Rows and columns that hold the image (`Letterbox.content`).

    Returns
    -------
    ndarray
        (512, 512) uint8 {0, 255}.
    """
    mask = np.zeros(probability.shape, np.uint8)
    binary = (probability[content] > threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    largest = np.argsort(stats[1:, cv2.CC_STAT_AREA])[::-1][:2] + 1
    lungs = np.isin(labels, largest).astype(np.uint8) if count > 1 else binary
    mask[content] = fill_holes(lungs) * 255
    return mask


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what the foreground encloses; (H, W) uint8 {0, 1} in and out."""
    framed = np.pad(mask, 1)
    outside = framed.copy()
    cv2.floodFill(outside, None, (0, 0), 1)
    return (framed | (1 - outside))[1:-1, 1:-1]


@dataclass(frozen=True)
class MaskAssessment:
    """How large the lungs are and what speaks against the mask.

    Fractions are of the letterbox's content area. Left and right are the viewer's. ``problems`` is
    empty for a plausible mask, else some of ``no_lung``, ``too_small``, ``too_large``, ``one_sided``
    and ``off_centre``.
    """

    area_fraction: float
    left_fraction: float
    right_fraction: float
    problems: tuple[str, ...]


def assess_mask(mask: np.ndarray, content: tuple[slice, slice], limits: PlausibilityConfig) -> MaskAssessment:
    """Measure a mask from `clean_mask` and hold it against ``limits``.

    Two components that lie side by side are the two lungs, wherever they are; otherwise (a joined
    mask, or one lung) the content's middle column divides left from right.
    """
    lungs = mask[content] > 0
    height, width = lungs.shape
    area = float(lungs.mean())
    if area == 0:
        return MaskAssessment(0.0, 0.0, 0.0, ("no_lung",))
    left, right = (part / lungs.size for part in _sides(lungs))
    rows, columns = np.nonzero(lungs)
    offset = max(abs((rows.mean() + 0.5) / height - 0.5), abs((columns.mean() + 0.5) / width - 0.5))
    found = {
        "too_small": area < limits.min_area_fraction,
        "too_large": area > limits.max_area_fraction,
        "one_sided": min(left, right) < limits.min_side_balance * max(left, right),
        "off_centre": offset > limits.max_centroid_offset,
    }
    return MaskAssessment(area, left, right, tuple(name for name, wrong in found.items() if wrong))


def _sides(lungs: np.ndarray) -> tuple[int, int]:
    """Pixels of the left and the right lung of a boolean (H, W) mask."""
    _, _, stats, centroids = cv2.connectedComponentsWithStats(lungs.astype(np.uint8), connectivity=8)
    order = np.argsort(centroids[1:, 0]) + 1
    areas = stats[order, cv2.CC_STAT_AREA]
    apart = len(order) == 2 and centroids[order[1], 0] - centroids[order[0], 0] > 0.15 * lungs.shape[1]
    if apart and areas.min() >= MIN_COMPONENT * areas.max():
        return int(areas[0]), int(areas[1])
    middle = lungs.shape[1] // 2
    return int(lungs[:, :middle].sum()), int(lungs[:, middle:].sum())
