"""A lung mask that a person or a program has drawn, however its file writes it, to lung or not lung."""

import cv2
import numpy as np

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.png import looks_like, png_samples

_CONFIG = DecodeConfig.parse({"min_side": 1, "reduce_to": None, "keep_colour": False})
MAX_BYTES = _CONFIG.max_file_bytes
_FEW_VALUES = 4  # a mask of labels (0, 1, 2) has so many; smooth edges have more
_MAX_SHARE_OF_BORDER = 0.5


def read_mask(data: bytes) -> np.ndarray:
    """(H, W) bool, True where lung is drawn.

    A PNG of any kind: gray of 1 to 16 bits, a palette, colours, or a drawing in the alpha channel alone. Where there
    are few values (0/1, 0/255, 0/1/2), all above 0 are lung; else those above half of the largest. Other formats are
    read as images.

    Raises
    ------
    ImageRejected
        For what is no image, and ``no_lung`` where nothing is drawn, or the background instead of the lungs.
    """
    levels = _drawn(png_samples(data, _CONFIG)) if looks_like(data) else decode_image(data, _CONFIG).pixels
    lung = levels > (0 if len(np.unique(levels)) <= _FEW_VALUES else int(levels.max()) // 2)
    border = np.concatenate([lung[0], lung[-1], lung[:, 0], lung[:, -1]])
    if not lung.any() or border.mean() > _MAX_SHARE_OF_BORDER:
        raise ImageRejected("no_lung", "no lung is drawn in the mask, or the background is drawn instead.")
    return lung


def unite(masks: list[np.ndarray]) -> np.ndarray:
    """The union of masks of one shape.

    Raises
    ------
    ImageRejected
        ``size_mismatch`` if their shapes differ.
    """
    if len({mask.shape for mask in masks}) > 1:
        raise ImageRejected("size_mismatch", "the masks of the left and the right lung differ in size.")
    return np.logical_or.reduce(masks)


def _drawn(samples: np.ndarray) -> np.ndarray:
    """(H, W) levels of what a PNG's samples show: the brightest of their channels, or alpha where only that varies."""
    if samples.ndim == 2:
        return samples
    colour = samples[..., :3].max(axis=2)
    if samples.shape[2] == 3:
        return colour
    alpha = samples[..., 3]
    if colour.min() == colour.max():
        return alpha
    return cv2.bitwise_and(colour, np.where(alpha > 0, np.iinfo(samples.dtype).max, 0).astype(samples.dtype))
