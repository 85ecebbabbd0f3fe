"""From letterboxed gray X-rays to the probability that each pixel is lung; `lung_mask` makes masks of them.

Everything is in 512x512 letterbox coordinates (`penumo_assets.imaging.letterbox`).
"""

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from penumo_assets.configs.prepare import SegmenterBackend
from penumo_assets.imaging.formats.decoded import eight_bit
from penumo_assets.imaging.segment_engine import BATCH, SIZE, open_engine
from penumo_assets.imaging.segment_looks import Looks, agreement, bundled_upright
from penumo_assets.imaging.segment_weights import BUNDLED, bundled_facts, read_weights

MIN_CONTRAST = 4  # gray levels: an image that varies less is constant but for noise


class BackendUnavailable(RuntimeError):
    """The package behind an optional segmenter is not installed."""


class Segmenter(Protocol):
    """What looks at films; ``digest`` is the SHA-256 of its weights."""

    digest: str

    def look(self, batch: np.ndarray) -> Looks:
        """Where the lungs are on (N, 512, 512) uint8 letterboxed gray images, and what was seen beside them."""


class LungSegmenter:
    """The lung U-Net with its weights, ready for batches of images on CPU or GPU.

    Parameters
    ----------
    weights : Path, optional
        A safetensors file of the same architecture; the bundled weights by default.
    expected_sha256 : str, optional
        Refuse the file unless its SHA-256 is this. The bundled file is always checked.
    threads : int, optional
        Threads of a CPU that one film is looked at with.

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
        tensors, self.digest = read_weights(weights or BUNDLED, expected_sha256)
        self.engine = open_engine(tensors, threads)
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

    def _look(self, batch: np.ndarray, chosen: list[int], looks: Looks) -> None:
        """Enter what is seen on some of the images."""
        seen = self.engine.see(batch[chosen])
        looks.probabilities[chosen], looks.inverted[chosen] = seen.probabilities, seen.negative
        if self.upright is not None:
            looks.agreement[chosen] = agreement(seen.first, seen.second)
            looks.rotated[chosen] = self.upright.rotated(seen.deepest)


def open_segmenter(backend: SegmenterBackend, weights: Path | None = None, threads: int | None = None) -> Segmenter:
    """The configured segmenter; ``weights`` are the lung U-Net's, the bundled ones if None.

    Raises
    ------
    WeightsError, BackendUnavailable
        As `LungSegmenter` and `segment_pspnet.PSPNetSegmenter` do.
    """
    if backend is SegmenterBackend.pspnet:
        from penumo_assets.imaging.segment_pspnet import PSPNetSegmenter  # loads torch

        return PSPNetSegmenter(threads=threads)
    return LungSegmenter(weights, threads=threads)


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
