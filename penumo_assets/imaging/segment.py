"""From letterboxed gray X-rays to the probability that each pixel is lung; `lung_mask` makes masks of them.

Everything is in 512x512 letterbox coordinates (`penumo_assets.imaging.letterbox`).
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from penumo_assets.imaging.formats.decoded import eight_bit
from penumo_assets.imaging.segment_looks import Looks, agreement, bundled_upright
from penumo_assets.imaging.segment_weights import BUNDLED, bundled_facts, fold_batch_norms, load_lung_unet
from penumo_assets.models.lung_unet import is_negative, standardise, to_device

SIZE = 512
BATCH = 8
LOOKS = (192, 224)  # sides in pixels; the mean of two looks outlines better than either (docs/model_card_lung_unet.md)
MIN_CONTRAST = 4  # gray levels: an image that varies less is constant but for noise


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
        self.upright = bundled_upright() if self.digest == bundled_upright().segmenter else None

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Probability that each pixel is lung: the ``probabilities`` of `look`."""
        return self.look(batch).probabilities

    def look(self, batch: np.ndarray) -> Looks:
        """Where the lungs are, and what was seen beside them.

        Parameters
        ----------
        batch : ndarray
            (N, 512, 512) uint8 letterboxed gray images; N may be 0.

        Returns
        -------
        Looks
            Probabilities (N, 512, 512) float32 in [0, 1], never NaN. An image without any content (black, constant)
            gets 0 everywhere. With other than the bundled weights nothing is said of agreement and rotation.

        Raises
        ------
        ValueError
            If the shape or dtype is another.
        """
        check_batch(batch)
        looks = Looks.of(np.zeros(batch.shape, np.float32))
        filled = [i for i, image in enumerate(batch) if has_content(image)]
        for start in range(0, len(filled), BATCH):
            self._look(batch, filled[start : start + BATCH], looks)
        return looks

    @torch.inference_mode()
    def _look(self, batch: np.ndarray, chosen: list[int], looks: Looks) -> None:
        """Enter two looks at some of the images, in their right polarity."""
        coarse, fine = (standardise(self._reduced(batch[chosen], side)) for side in LOOKS)
        levels = self.model.encode(coarse)
        first, deepest = self.model.decode(levels), levels[-1]
        negative = is_negative(coarse, first)
        if negative.any():
            levels = self.model.encode(-coarse[negative])
            first[negative], deepest[negative] = self.model.decode(levels), levels[-1]
            fine[negative] = -fine[negative]
        second = self.model.features(fine.flip(3)).flip(3)
        first = _resized(first, second.shape[-1])
        logits = (first + second) / 2
        # Finite weights can still overflow; undefined counts as not lung.
        probabilities = _resized(logits.nan_to_num(-30.0, 30.0, -30.0), SIZE).sigmoid_()
        looks.probabilities[chosen] = probabilities[:, 0].cpu().numpy()
        looks.inverted[chosen] = negative.cpu().numpy()
        if self.upright is not None:
            looks.agreement[chosen] = agreement(first, second)
            looks.rotated[chosen] = self.upright.rotated(deepest)

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
