"""Outlines of a frontal chest in patient coordinates, and the pose that lays them on the detector.

Patient coordinates: X runs across the chest, -1 at the inner wall of the patient's right side (the
image's left) and +1 at the left; Y is 0 at the lung apex and 1 at the costophrenic angle. Every
outline is an (N, 2) float array.
"""

from dataclasses import dataclass

import numpy as np

RIGHT, LEFT = -1, 1


@dataclass(frozen=True)
class Pose:
    """Patient coordinates to pixels: scale in X and Y, in-plane rotation, shift (all in pixels, radians)."""

    scale_x: float
    scale_y: float
    rotation: float
    centre_x: float
    centre_y: float

    @classmethod
    def sample(cls, rng: np.random.Generator, height: int, width: int) -> "Pose":
        """A plausible positioning of the patient before a ``height`` x ``width`` detector."""
        scale_x = width * rng.uniform(0.34, 0.44)
        scale_y = 2 * scale_x * rng.uniform(0.80, 1.02)
        shrink = min(1.0, height * rng.uniform(0.70, 0.82) / scale_y)
        scale_x, scale_y = scale_x * shrink, scale_y * shrink
        free = height - scale_y
        return cls(
            scale_x=scale_x,
            scale_y=scale_y,
            rotation=float(np.clip(rng.normal(0, 0.025), -0.07, 0.07)),
            centre_x=width * (0.5 + float(np.clip(rng.normal(0, 0.02), -0.05, 0.05))),
            centre_y=free * rng.uniform(0.35, 0.75) + scale_y / 2,
        )

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Map (N, 2) patient coordinates to (N, 2) pixel coordinates (x, y)."""
        x = points[:, 0] * self.scale_x
        y = (points[:, 1] - 0.5) * self.scale_y
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        return np.stack([self.centre_x + cos * x - sin * y, self.centre_y + sin * x + cos * y], axis=1)


@dataclass(frozen=True)
class Anatomy:
    """What makes one patient's chest differ from another's; X and Y in patient coordinates."""

    apex_x: float
    medial_x: float
    side_width: tuple[float, float]
    dome_y: tuple[float, float]
    sulcus_y: tuple[float, float]
    dome_power: float
    wall_phase: tuple[float, float, float]
    heart_size: float
    heart_shift: float
    wall_thickness: float
    rib_count: int
    rib_slope: float
    clavicle_y: float
    arms_down: bool
    breast: float
    stomach_gas: bool

    @classmethod
    def sample(cls, rng: np.random.Generator, *, female: bool, anteroposterior: bool) -> "Anatomy":
        """One patient; an AP view enlarges the heart and raises the diaphragm."""
        asymmetry = rng.uniform(-0.02, 0.06)
        dome = rng.uniform(0.81, 0.88) - 0.02 * anteroposterior
        return cls(
            apex_x=rng.uniform(0.30, 0.40),
            medial_x=rng.uniform(0.10, 0.15),
            side_width=(1.0 + asymmetry / 2, 1.0 - asymmetry / 2),
            dome_y=(dome - rng.uniform(0.0, 0.04), dome + rng.uniform(0.0, 0.03)),
            sulcus_y=(0.98 + rng.uniform(-0.02, 0.02), 1.0 + rng.uniform(-0.01, 0.03)),
            dome_power=rng.uniform(2.2, 3.6),
            wall_phase=(rng.uniform(0, 6.28), rng.uniform(0, 6.28), rng.uniform(0, 6.28)),
            heart_size=rng.uniform(0.82, 1.08) + 0.10 * anteroposterior,
            heart_shift=rng.uniform(-0.04, 0.04),
            wall_thickness=rng.uniform(0.10, 0.26),
            rib_count=int(rng.integers(9, 11)),
            rib_slope=rng.uniform(0.10, 0.24),
            clavicle_y=rng.uniform(0.02, 0.12),
            arms_down=bool(rng.random() < 0.5),
            breast=rng.uniform(0.05, 0.16) if female else 0.0,
            stomach_gas=bool(rng.random() < 0.5),
        )

    def width(self, side: int) -> float:
        """Half-width of the thorax on ``side`` (RIGHT or LEFT)."""
        return self.side_width[0 if side == RIGHT else 1]

    def chest_wall(self, side: int, y: np.ndarray) -> np.ndarray:
        """|X| of the lung's lateral border at heights ``y``."""
        t = np.clip(y, 0, 1)
        profile = (1 - (1 - t) ** 2.3) ** 0.75
        phase = self.wall_phase[0 if side == RIGHT else 1]
        ripple = 0.010 * np.sin(9 * t + phase) + 0.006 * np.sin(19 * t + self.wall_phase[2])
        return self.width(side) * (self.apex_x + (1 - self.apex_x) * profile) + ripple * np.minimum(1, 4 * t)

    def diaphragm(self, side: int, x: np.ndarray) -> np.ndarray:
        """Y of the lung's base at distances ``x`` = |X| from the midline: a dome with a deep lateral sulcus."""
        index = 0 if side == RIGHT else 1
        a = np.clip((x - self.medial_x) / (self.width(side) - self.medial_x), 0, 1)
        dome, sulcus = self.dome_y[index], self.sulcus_y[index]
        return dome + (sulcus - dome) * a**self.dome_power + 0.035 * (1 - a) ** 4

    def lung(self, side: int) -> np.ndarray:
        """Outline of one lung, the part hidden behind the heart and beside the spine included."""
        index = 0 if side == RIGHT else 1
        down = np.linspace(0, self.sulcus_y[index], 60)
        lateral = np.stack([self.chest_wall(side, down), down], axis=1)
        inward = np.linspace(float(lateral[-1, 0]), self.medial_x, 40)[1:]
        base = np.stack([inward, self.diaphragm(side, inward)], axis=1)
        up = np.linspace(float(base[-1, 1]), 0, 60)[1:]
        bulge = 1 - np.sqrt(1 - np.clip(1 - up / 0.10, 0, 1) ** 2)
        medial = np.stack([self.medial_x + (self.apex_x - self.medial_x) * bulge + 0.006 * np.sin(11 * up), up], axis=1)
        outline = np.concatenate([lateral, base, medial])
        return outline * np.array([side, 1.0])

    def torso(self) -> np.ndarray:
        """Outline of neck, shoulders and trunk, without the arms."""
        wall = 1.0 + self.wall_thickness
        half = np.array(
            [
                [0.30, -0.9],
                [0.31, -0.42],
                [0.40, -0.24],
                [0.80, -0.13],
                [wall + 0.12, -0.02],
                [wall + 0.18, 0.12],
                [wall + 0.02, 0.34],
                [wall, 0.60],
                [wall + 0.01, 1.00],
                [wall - 0.02, 1.8],
            ]
        )
        return smooth(np.concatenate([half, half[::-1] * np.array([-1.0, 1.0])]))

    def arm(self, side: int) -> np.ndarray:
        """Outline of an upper arm, hanging or abducted."""
        wall = 1.0 + self.wall_thickness
        if self.arms_down:
            half = np.array([[wall - 0.1, -0.05], [wall + 0.2, 0.0], [wall + 0.42, 0.3], [wall + 0.50, 1.6]])
            inner = np.array([[wall + 0.14, 1.6], [wall + 0.10, 0.5], [wall - 0.05, 0.28]])
        else:
            half = np.array([[wall - 0.2, -0.08], [wall + 0.2, -0.12], [wall + 1.2, -0.05]])
            inner = np.array([[wall + 1.2, 0.35], [wall + 0.3, 0.28], [wall - 0.05, 0.34]])
        return smooth(np.concatenate([half, inner])) * np.array([side, 1.0])

    def heart(self) -> np.ndarray:
        """Outline of the heart shadow: right atrium, left ventricle and its apex."""
        points = np.array(
            [
                [-0.14, 0.36], [-0.19, 0.52], [-0.26, 0.66], [-0.24, 0.80], [-0.10, 0.93], [0.20, 1.00],
                [0.46, 0.96], [0.56, 0.85], [0.51, 0.72], [0.38, 0.59], [0.24, 0.47], [0.18, 0.36], [0.0, 0.30],
            ]
        )  # fmt: skip
        centred = (points - [0.0, 0.62]) * [self.heart_size, 0.9 + 0.1 * self.heart_size]
        return smooth(centred + np.array([self.heart_shift, 0.62]))

    def rib(self, side: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Centre lines of one rib: its posterior arch from the spine, its anterior arch back to the sternum."""
        y0 = -0.06 + 0.098 * index
        drop = self.rib_slope * (0.35 + 0.75 * index / self.rib_count)
        y_wall = y0 + drop
        wall = float(self.chest_wall(side, np.array([max(y_wall, 0.05)]))[0]) + 0.02
        t = np.linspace(0, 1, 30)
        x = 0.07 + (wall - 0.07) * np.sin(t * np.pi / 2) ** 0.9
        hump = 0.06 * np.sin(np.pi * np.minimum(1, 1.25 * t))
        posterior = np.stack([x, y0 + drop * t**1.8 - hump], axis=1)
        reach = wall - (0.55 - 0.02 * index) * wall * t
        anterior = np.stack([wall * np.sqrt(1 - t**2) * 0.03 + reach, y_wall + 0.22 * np.sin(t * np.pi / 2)], axis=1)
        flip = np.array([side, 1.0])
        return posterior * flip, anterior * flip

    def clavicle(self, side: int) -> np.ndarray:
        """Centre line of one clavicle."""
        y = self.clavicle_y
        points = np.array([[0.10, y + 0.06], [0.35, y + 0.02], [0.65, y - 0.07], [0.95, y - 0.10], [1.18, y - 0.09]])
        return _resample(points, 40, closed=False) * np.array([side, 1.0])


def smooth(points: np.ndarray, samples: int = 200) -> np.ndarray:
    """A closed outline through the neighbourhood of control ``points``, corners rounded."""
    return _resample(points, samples, closed=True)


def _resample(points: np.ndarray, samples: int, *, closed: bool) -> np.ndarray:
    """Even samples along a polyline, then a moving average that rounds its corners."""
    path = np.concatenate([points, points[:1]]) if closed else points
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    at = np.linspace(0, length[-1], samples, endpoint=not closed)
    dense = np.stack([np.interp(at, length, path[:, k]) for k in (0, 1)], axis=1)
    reach = max(1, samples // 30)
    kernel = np.hanning(2 * reach + 3)[1:-1]
    padded = np.pad(dense, ((reach, reach), (0, 0)), mode="wrap" if closed else "reflect", **_reflect(closed))
    return np.stack([np.convolve(padded[:, k], kernel / kernel.sum(), mode="valid") for k in (0, 1)], axis=1)


def _reflect(closed: bool) -> dict:
    return {} if closed else {"reflect_type": "odd"}
