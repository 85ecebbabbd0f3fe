"""Fit an image of any shape into a square, keeping its aspect ratio, and come back exactly.

A letterboxed image is what the lung segmenter sees. The transform follows from the image's height and width, which
the manifest holds, so that a mask drawn in letterbox coordinates can be laid over the original pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np

_HALVED_FROM = 3
REDUCTIONS = (1, 2, 4, 8)  # the scales at which JPEG and JPEG 2000 can be decoded for less


@dataclass(frozen=True)
class Letterbox:
    """Where an image of ``height`` x ``width`` lies inside a ``size`` x ``size`` square.

    All values are in pixels; ``top`` and ``left`` are the padding before the content, and
    ``content_height`` x ``content_width`` is the resized image (each at least 1 pixel).
    """

    height: int
    width: int
    size: int
    content_height: int
    content_width: int
    top: int
    left: int

    @classmethod
    def fit(cls, height: int, width: int, size: int = 512) -> "Letterbox":
        """The transform for an image of ``height`` x ``width`` pixels.

        Raises
        ------
        ValueError
            If a dimension or ``size`` is not positive.
        """
        if height < 1 or width < 1 or size < 1:
            raise ValueError(f"cannot letterbox {height}x{width} into {size}: sizes must be positive")
        scale = size / max(height, width)
        content_height = min(size, max(1, round(height * scale)))
        content_width = min(size, max(1, round(width * scale)))
        return cls(
            height=height,
            width=width,
            size=size,
            content_height=content_height,
            content_width=content_width,
            top=(size - content_height) // 2,
            left=(size - content_width) // 2,
        )

    @property
    def content(self) -> tuple[slice, slice]:
        """Rows and columns of the square that hold the image rather than padding."""
        return (
            slice(self.top, self.top + self.content_height),
            slice(self.left, self.left + self.content_width),
        )

    def apply(self, image: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Resize and pad ``image`` (H, W) or (H, W, C) to (size, size[, C]), dtype kept.

        Area interpolation when shrinking, linear when growing, nearest for masks. Padding is 0. An image
        that was reduced by a power of two when it was decoded comes to lie where the whole one would.

        Raises
        ------
        ValueError
            If ``image`` is not ``height`` x ``width``, or that divided by 2, 4 or 8 and rounded up.
        """
        if image.shape[:2] not in [reduced_size((self.height, self.width), factor) for factor in REDUCTIONS]:
            raise ValueError(f"letterbox made for {self.height}x{self.width}, got {image.shape[:2]}")
        square = np.zeros((self.size, self.size, *image.shape[2:]), dtype=image.dtype)
        square[self.content] = resize(image, self.content_height, self.content_width, nearest=nearest)
        return square

    def invert_mask(self, mask: np.ndarray) -> np.ndarray:
        """Map a (size, size) mask back onto the original (height, width) pixels, nearest neighbour.

        Raises
        ------
        ValueError
            If ``mask`` is not ``size`` x ``size``.
        """
        if mask.shape != (self.size, self.size):
            raise ValueError(f"expected a {self.size}x{self.size} mask, got {mask.shape}")
        return resize(np.ascontiguousarray(mask[self.content]), self.height, self.width, nearest=True)


def reduced_size(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """Height and width divided by ``factor``, rounded up, as JPEG and JPEG 2000 decoders round."""
    return -(-size[0] // factor), -(-size[1] // factor)


def resize(image: np.ndarray, height: int, width: int, *, nearest: bool = False) -> np.ndarray:
    """Resize (H, W[, C]) to (height, width[, C]): area down, linear up, or nearest for masks.

    Images of even sides that shrink to a third or less, but not to a whole fraction, are averaged over 2x2 pixels
    first, which OpenCV does forty times faster: 1.5 ms instead of 4 from 2000x2000 to 512x512, 0.2 of 255 gray
    levels away on average, 1 in all but a hundredth of the pixels, 21 along the edge of a marker or a shutter.
    """
    if image.shape[:2] == (height, width):
        return image.copy()
    if nearest:
        # OpenCV's INTER_NEAREST_EXACT works in 16-bit fixed point and misses pixels near ties.
        rows, columns = _nearest(image.shape[0], height), _nearest(image.shape[1], width)
        return image.take(rows, axis=0).take(columns, axis=1)
    rows, columns = image.shape[:2]
    whole = rows % height == columns % width == 0
    if not whole and rows % 2 == columns % 2 == 0 and rows >= _HALVED_FROM * height and columns >= _HALVED_FROM * width:
        image = cv2.resize(image, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
    shrinks = height < image.shape[0] or width < image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=interpolation)


def _nearest(source: int, target: int) -> np.ndarray:
    """For each of ``target`` pixels the index of the ``source`` pixel that its centre lies in."""
    return (2 * np.arange(target) + 1) * source // (2 * target)
