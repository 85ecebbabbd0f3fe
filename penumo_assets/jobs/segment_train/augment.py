"""What real radiographs do to a lung segmenter, done on purpose while it trains.

Every function takes and returns arrays and draws from the generator it is given, so a training step
can be repeated exactly from its seed. Intensities are float32 gray levels 0..255.
"""

from dataclasses import dataclass

import cv2
import numpy as np

Generator = np.random.Generator


@dataclass(frozen=True)
class AugmentConfig:
    """How strong and how often. Angles in degrees, lengths as shares of the side, the rest probabilities."""

    clean: float = 0.2  # only moved and bent, otherwise as it came
    rotation: float = 12.0
    shear: float = 0.08
    scale: tuple[float, float] = (0.78, 1.32)
    aspect: float = 0.16
    shift: float = 0.09
    flip: float = 0.5
    elastic: float = 0.25
    opacity: float = 0.35
    whiteout: float = 0.0
    bias_field: float = 0.25
    devices: float = 0.35
    text: float = 0.35
    local_contrast: float = 0.15
    sharpen: float = 0.12
    blur: float = 0.2
    noise: float = 0.25
    saturate: float = 0.25
    gamma: float = 0.5
    contrast: float = 0.5
    inversion: float = 0.25
    bars: float = 0.35
    compression: float = 0.1


def augment(image: np.ndarray, mask: np.ndarray, size: int, config: AugmentConfig, rng: Generator) -> tuple:
    """One augmented view of a letterboxed image and its mask.

    Parameters
    ----------
    image, mask : ndarray
        (S, S) uint8; the mask is {0, 255}.
    size : int
        Side of the result in pixels.

    Returns
    -------
    tuple of ndarray
        Image (size, size) float32 in 0..255 and mask (size, size) float32 in 0..1 (soft at its edge).
    """
    pixels, target = warp(image, mask, size, config, rng)
    if rng.random() < config.clean:
        return np.round(pixels), target
    if config.whiteout and rng.random() < config.whiteout:
        pixels = white_out(pixels, target, rng)
    if rng.random() < config.opacity:
        pixels = add_opacities(pixels, target, rng)
    if rng.random() < config.bias_field:
        pixels = np.clip(pixels * (1.0 + 0.6 * smooth_noise(size, rng)), 0, 255)
    if rng.random() < config.devices:
        draw_devices(pixels, rng)
    pixels = degrade(pixels, config, rng)
    pixels = change_tone(pixels, config, rng)
    if rng.random() < config.text:
        pixels = draw_text(pixels, rng)
    if rng.random() < config.compression:
        pixels = compress(pixels, int(rng.integers(15, 70)))
    if rng.random() < config.bars:
        draw_bars(pixels, target, rng)
    # Real input is 8 bit: low contrast must lose levels here as it does there.
    return np.round(np.clip(pixels, 0, 255)).astype(np.float32), target


def warp(image: np.ndarray, mask: np.ndarray, size: int, config: AugmentConfig, rng: Generator) -> tuple:
    """Rotate, shear, scale, squeeze, shift, mirror and bend, in one interpolation."""
    side = image.shape[0]
    angle = np.deg2rad(rng.normal(0, config.rotation / 2))
    zoom = np.exp(rng.uniform(*np.log(config.scale))) * size / side
    squeeze = np.exp(rng.uniform(-config.aspect, config.aspect) / 2)
    mirror = -1.0 if rng.random() < config.flip else 1.0
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1.0, rng.uniform(-config.shear, config.shear)], [0.0, 1.0]])
    linear = zoom * rotate @ shear @ np.diag([mirror * squeeze, 1 / squeeze])
    centre = size / 2 + size * rng.uniform(-config.shift, config.shift, 2)
    matrix = np.hstack([linear, (centre - linear @ np.full(2, side / 2))[:, None]])
    border = float(rng.choice([0.0, 0.0, rng.uniform(0, 255)]))
    if rng.random() >= config.elastic:
        pixels = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=border)
        target = cv2.warpAffine(mask, matrix, (size, size), flags=cv2.INTER_LINEAR)
    else:
        straight = np.arange(size, dtype=np.float32)
        columns = straight[None] + 0.03 * size * smooth_noise(size, rng)
        rows = straight[:, None] + 0.03 * size * smooth_noise(size, rng)
        inverse = cv2.invertAffineTransform(matrix).astype(np.float32)
        source_x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
        source_y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
        pixels = cv2.remap(image, source_x, source_y, cv2.INTER_LINEAR, borderValue=border)
        target = cv2.remap(mask, source_x, source_y, cv2.INTER_LINEAR)
    return pixels.astype(np.float32), target.astype(np.float32) / 255


def smooth_noise(size: int, rng: Generator) -> np.ndarray:
    """A smooth random field (size, size) float32 of about -1..1."""
    cells = int(rng.integers(3, 6))
    return cv2.resize(
        rng.uniform(-1, 1, (cells, cells)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )


def add_opacities(pixels: np.ndarray, target: np.ndarray, rng: Generator) -> np.ndarray:
    """Lay consolidations, or an effusion, over the lungs and their borders: bright, soft, dense."""
    size = len(pixels)
    rows, columns = np.nonzero(target > 0.5)
    if rows.size < 50:
        return pixels
    cover = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        pick = int(rng.integers(rows.size))
        axes = tuple(int(v) for v in rng.uniform(0.03, 0.17, 2) * size)
        centre = (int(columns[pick]), int(rows[pick]))
        cv2.ellipse(cover, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.35, 1.0)), -1)
    if rng.random() < 0.35:
        # A basal effusion: everything below a slanted level on one side goes white.
        half = columns < size / 2 if rng.random() < 0.5 else columns >= size / 2
        if half.any():
            level = np.quantile(rows[half], rng.uniform(0.0, 0.95))  # 0: the whole lung
            slope = rng.uniform(-0.4, 0.4)
            left, right = int(columns[half].min()), int(columns[half].max())
            y_left, y_right = int(level - slope * (right - left) / 2), int(level + slope * (right - left) / 2)
            corners = np.array([[left, y_left], [right, y_right], [right, size], [left, size]], np.int32)
            cv2.fillPoly(cover, [corners], float(rng.uniform(0.5, 1.0)))
    sigma = size * float(rng.uniform(0.008, 0.04))
    soft = cv2.GaussianBlur(cover, (0, 0), sigma)
    bright = np.quantile(pixels[::4, ::4], rng.uniform(0.75, 0.95)) + 12 * smooth_noise(size, rng)
    return pixels + soft * np.maximum(bright - pixels, 0)


def white_out(pixels: np.ndarray, target: np.ndarray, rng: Generator) -> np.ndarray:
    """Hide one whole lung and its border, as a large effusion or a collapse does."""
    size = len(pixels)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((target > 0.5).astype(np.uint8))
    if len(stats) < 2:
        return pixels
    lung = int(rng.choice(np.argsort(stats[1:, cv2.CC_STAT_AREA])[-2:])) + 1
    reach = 2 * int(size * rng.uniform(0.01, 0.04)) + 1
    grown = cv2.dilate((labels == lung).astype(np.float32), np.ones((reach, reach), np.uint8))
    soft = cv2.GaussianBlur(grown, (0, 0), size * float(rng.uniform(0.01, 0.04))) * float(rng.uniform(0.7, 1.0))
    level = np.quantile(pixels[::4, ::4], rng.uniform(0.7, 0.9)) + 10 * smooth_noise(size, rng)
    return (pixels + soft * np.maximum(level - pixels, 0)).astype(np.float32)


def draw_devices(pixels: np.ndarray, rng: Generator) -> None:
    """Draw tubes, wires, electrodes and metal, in place."""
    size = len(pixels)
    for _ in range(int(rng.integers(1, 5))):
        level = float(rng.uniform(150, 255))
        kind = rng.random()
        if kind < 0.6:
            knots = rng.uniform(-0.1, 1.1, (4, 2)) * size
            steps = np.linspace(0, 1, 24)[:, None]
            basis = [(1 - steps) ** 3, 3 * steps * (1 - steps) ** 2, 3 * steps**2 * (1 - steps), steps**3]
            curve = sum(weight * knot for weight, knot in zip(basis, knots, strict=True))
            cv2.polylines(pixels, [curve.astype(np.int32)], False, level, int(rng.integers(1, 3)), cv2.LINE_AA)
        elif kind < 0.85:
            centre = tuple(int(v) for v in rng.uniform(0.1, 0.9, 2) * size)
            radius = int(size * rng.uniform(0.008, 0.03)) + 1
            cv2.circle(pixels, centre, radius, level, -1 if rng.random() < 0.5 else 1, cv2.LINE_AA)
        else:
            corner = rng.uniform(0.05, 0.85, 2) * size
            extent = rng.uniform(0.03, 0.16, 2) * size
            start, end = tuple(map(int, corner)), tuple(map(int, corner + extent))
            cv2.rectangle(pixels, start, end, level, -1)


def draw_text(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Burn in side markers, dates and arrows."""
    size = len(pixels)
    canvas = np.clip(pixels, 0, 255).astype(np.uint8)  # OpenCV writes text on 8-bit images only
    letters = list("RLAPS0123456789:/-. ")
    for _ in range(int(rng.integers(1, 4))):
        text = "".join(rng.choice(letters, int(rng.integers(1, 12))))
        place = tuple(int(v) for v in rng.uniform(0.0, 0.95, 2) * size)
        level = float(rng.choice([255.0, 255.0, 0.0, rng.uniform(100, 255)]))
        scale = float(size / 256 * rng.uniform(0.25, 1.1))
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, level, int(rng.integers(1, 3)), cv2.LINE_AA)
    if rng.random() < 0.15:
        start, end = (tuple(int(v) for v in rng.uniform(0.1, 0.9, 2) * size) for _ in range(2))
        cv2.arrowedLine(canvas, start, end, 255.0, int(rng.integers(1, 3)), cv2.LINE_AA, tipLength=0.3)
    return canvas.astype(np.float32)


def degrade(pixels: np.ndarray, config: AugmentConfig, rng: Generator) -> np.ndarray:
    """Local contrast, sharpening, blur and noise."""
    if rng.random() < config.local_contrast:
        clahe = cv2.createCLAHE(float(rng.uniform(1, 6)), (int(rng.integers(2, 9)),) * 2)
        pixels = clahe.apply(np.clip(pixels, 0, 255).astype(np.uint8)).astype(np.float32)
    if rng.random() < config.sharpen:
        soft = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(1, 5)))
        pixels = pixels + float(rng.uniform(0.3, 2.0)) * (pixels - soft)
    if rng.random() < config.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 2.0)))
    if rng.random() < config.noise:
        grain = rng.standard_normal(pixels.shape, dtype=np.float32) * float(rng.uniform(2, 16))
        pixels = pixels + (cv2.GaussianBlur(grain, (0, 0), 0.8) if rng.random() < 0.3 else grain)
    return np.clip(pixels, 0, 255)


def change_tone(pixels: np.ndarray, config: AugmentConfig, rng: Generator) -> np.ndarray:
    """Saturation, gamma, inversion, contrast and brightness."""
    if rng.random() < config.saturate:
        low, high = np.quantile(pixels[::4, ::4], [rng.uniform(0, 0.2), rng.uniform(0.8, 1.0)])
        pixels = np.clip((pixels - low) * (255 / max(high - low, 20.0)), 0, 255)
    if rng.random() < config.gamma:
        pixels = 255 * (pixels / 255) ** float(np.exp(rng.uniform(-0.9, 0.9)))
    if rng.random() < config.inversion:
        pixels = 255 - pixels
    if rng.random() < config.contrast:
        gain = float(rng.uniform(0.25, 1.0))
        pixels = gain * pixels + float(rng.uniform(0, 255 * (1 - gain)))
    return pixels


def draw_bars(pixels: np.ndarray, target: np.ndarray, rng: Generator) -> None:
    """Cover the margins by bars of one gray level, as letterboxing, collimation and cropping do, in place."""
    size = len(pixels)
    level = float(rng.choice([0.0, 0.0, 0.0, 255.0, rng.uniform(0, 255)]))
    for turn in rng.choice(4, int(rng.integers(1, 5)), replace=False):
        width = int(size * rng.uniform(0, 0.16))
        # np.rot90 returns a view, so writing to its first rows writes to one side of the image.
        np.rot90(pixels, turn)[:width] = level
        np.rot90(target, turn)[:width] = 0.0


def compress(pixels: np.ndarray, quality: int) -> np.ndarray:
    """What a JPEG file of ``quality`` (0..100) would keep."""
    _, encoded = cv2.imencode(".jpg", np.clip(pixels, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE).astype(np.float32)  # type: ignore[union-attr]
