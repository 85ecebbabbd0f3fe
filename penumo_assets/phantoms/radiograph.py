"""Draw one phantom radiograph: attenuation of tissue, air and bone added up, then exposed on a detector.

The same seed draws the same patient, pose and exposure whatever the label is: a normal and a
pneumonia image of one seed differ in the opacities alone, so no shortcut predicts the label.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from penumo_assets.phantoms.anatomy import LEFT, RIGHT, Anatomy, Pose
from penumo_assets.phantoms.canvas import Canvas, blur
from penumo_assets.phantoms.tissue import bones, opacities, pacemaker, soft_tissue

LABELS = ("normal", "pneumonia")
WHITE = 4095


@dataclass(frozen=True)
class Seeds:
    """Independent random streams: the patient, the pose and exposure, the disease."""

    patient: int
    exposure: int
    disease: int


def draw_phantom(
    seed: int, *, height: int = 640, width: int = 560, label: str = "normal", device: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a phantom frontal chest radiograph and its lung mask.

    Parameters
    ----------
    seed : int
        Not negative; the same seed gives the same pixels.
    height, width : int
        Size in pixels, at least 64 each.
    label : str
        ``normal`` or ``pneumonia``; pneumonia adds one to three patchy opacities inside the lungs.
    device : bool
        Draw a pacemaker with its lead.

    Returns
    -------
    image : (height, width) uint16
        12-bit values, bone bright (MONOCHROME2).
    mask : (height, width) uint8 {0, 255}
        Both lungs, diseased parts and the region behind the heart included, the mediastinum not.

    Raises
    ------
    ValueError
        If ``label`` is unknown, ``seed`` negative or the size below 64 pixels.
    """
    rng = np.random.default_rng([_checked(seed), 3])
    return draw_patient(
        Seeds(seed, seed, seed),
        height=height,
        width=width,
        label=label,
        device=device,
        female=bool(rng.random() < 0.5),
        anteroposterior=bool(rng.random() < 0.4),
    )


def draw_patient(
    seeds: Seeds, *, height: int, width: int, label: str, device: bool, female: bool, anteroposterior: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one patient with chosen sex and view; parameters and results as in `draw_phantom`."""
    if label not in LABELS:
        raise ValueError(f"label must be one of {', '.join(LABELS)}, got {label!r}")
    if min(height, width) < 64:
        raise ValueError(f"a phantom needs at least 64x64 pixels, got {height}x{width}")
    patient = np.random.default_rng([_checked(seeds.patient), 0])
    exposure = np.random.default_rng([_checked(seeds.exposure), 1])
    disease = np.random.default_rng([_checked(seeds.disease), 2])
    anatomy = Anatomy.sample(patient, female=female, anteroposterior=anteroposterior)
    canvas = Canvas(Pose.sample(exposure, height, width), height, width)

    mask = canvas.fill(anatomy.lung(RIGHT), anatomy.lung(LEFT))
    attenuation = soft_tissue(canvas, anatomy, mask, patient)
    if label == "pneumonia":
        attenuation += opacities(canvas, anatomy, mask, disease)
    attenuation += bones(canvas, anatomy)
    if device:
        attenuation += pacemaker(canvas)
    image = _expose(attenuation, canvas, exposure)
    return image, np.where(mask >= 0.5, 255, 0).astype(np.uint8)


def _checked(seed: int) -> int:
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return seed


def _expose(attenuation: np.ndarray, canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Scatter, contrast curve, quantum noise, collimation and marker: attenuation becomes 12-bit values."""
    scatter = rng.uniform(0.05, 0.25)
    signal = (1 - scatter) * attenuation + scatter * blur(attenuation, 0.25 * canvas.unit)
    low, high = rng.uniform(-0.10, 0.04), rng.uniform(1.05, 1.40)
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    # Fewer photons reach the detector behind dense tissue, so the noise of the logarithm grows there.
    signal += rng.uniform(0.004, 0.014) * cv2.GaussianBlur(noise, (0, 0), 0.6) * np.exp(0.8 * signal)
    level = np.clip((signal - low) / (high - low), 0, 1) ** rng.uniform(0.75, 1.25)
    image = 40 + level * rng.uniform(0.80, 0.97) * WHITE
    _collimate(image, rng)
    _mark(image, rng)
    return np.clip(np.round(image), 0, WHITE).astype(np.uint16)


def _collimate(image: np.ndarray, rng: np.random.Generator) -> None:
    """Blank the borders that the collimator kept from exposure, in some images."""
    height, width = image.shape
    share = rng.uniform(0.0, 0.035, 4) * (rng.random(4) < 0.35)
    top, bottom, left, right = (share * [height, height, width, width]).astype(int)
    for border in (image[:top], image[height - bottom :], image[:, :left], image[:, width - right :]):
        border[...] = 12


def _mark(image: np.ndarray, rng: np.random.Generator) -> None:
    """Burn in the side marker, in some images: R beside the patient's right shoulder."""
    wanted, x, y = rng.random() < 0.6, rng.uniform(0.03, 0.07), rng.uniform(0.08, 0.30)
    height, width = image.shape
    if wanted:
        letter = np.zeros(image.shape, np.uint8)
        origin = (int(x * width), int(y * height))
        cv2.putText(letter, "R", origin, cv2.FONT_HERSHEY_DUPLEX, height / 640, 255, max(1, height // 320), cv2.LINE_AA)
        np.maximum(image, letter * np.float32(0.97 * WHITE / 255), out=image)
