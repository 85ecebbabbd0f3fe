"""Rasterize outlines given in patient coordinates."""

from dataclasses import dataclass

import cv2
import numpy as np

from penumo_assets.phantoms.anatomy import Pose

_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Canvas:
    """Rasterizes outlines given in patient coordinates; every layer is (height, width) float32 in [0, 1]."""

    pose: Pose
    height: int
    width: int

    @property
    def unit(self) -> float:
        """Pixels per patient unit across the chest."""
        return self.pose.scale_x

    def fill(self, *outlines: np.ndarray, soften: float = 0.0) -> np.ndarray:
        """The union of filled outlines; ``soften`` is a Gaussian sigma in patient units."""
        layer = np.zeros((self.height, self.width), np.uint8)
        for outline in outlines:
            cv2.fillPoly(layer, [self._fixed_point(outline)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return self.shade(layer, soften)

    def shade(self, layer: np.ndarray, soften: float) -> np.ndarray:
        """A uint8 drawing as float32 in [0, 1], blurred while it is still small in memory."""
        return blur(layer, soften * self.unit).astype(np.float32) * np.float32(1 / 255)

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, soften: float) -> np.ndarray:
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        return self.fill(np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], axis=1), soften=soften)

    def stroke(self, layer: np.ndarray, lines: np.ndarray, thickness: float, value: int) -> None:
        """Draw one (N, 2) polyline or several (M, N, 2) into a uint8 ``layer``; ``thickness`` is in patient units."""
        pixels = max(1, round(thickness * self.unit))
        points = self._fixed_point(lines.reshape(-1, 2)).reshape(-1, *lines.shape[-2:])
        cv2.polylines(layer, list(points), False, value, pixels, cv2.LINE_AA, _SUBPIXEL_BITS)

    def empty(self) -> np.ndarray:
        return np.zeros((self.height, self.width), np.uint8)

    def noise(self, rng: np.random.Generator, grain: float) -> np.ndarray:
        """Smooth noise of unit variance or less; ``grain`` is its wavelength in patient units."""
        step = max(1.0, grain * self.unit)
        coarse = rng.standard_normal((int(self.height / step) + 3, int(self.width / step) + 3), dtype=np.float32)
        return cv2.resize(coarse, (self.width, self.height), interpolation=cv2.INTER_CUBIC)

    def _fixed_point(self, points: np.ndarray) -> np.ndarray:
        return np.round(self.pose.pixels(points) * 2**_SUBPIXEL_BITS).astype(np.int32)


def blur(layer: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; a wide one is done on a reduced layer, which looks the same and is many times faster."""
    if sigma <= 0.3:
        return layer
    factor = int(max(1, sigma // 1.5))
    if factor == 1:
        return cv2.GaussianBlur(layer, (0, 0), sigma)
    height, width = layer.shape
    small = cv2.resize(layer, (max(4, width // factor), max(4, height // factor)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
