"""Pictures that are no chest film, for `chest_films.py`: drawn ones, packages' sample pictures, other DICOM images."""

import gzip
import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pydicom

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.errors import ImageRejected

CHESTS = ("RG1_", "CR-MONO1-10-chest", "1.2.276.0.7230010", "Fake_MONOHR1")
SAMPLES = (
    ("skimage", "data/*.png"),
    ("skimage", "data/*.jpg"),
    ("sklearn", "datasets/images/*.jpg"),
    ("matplotlib", "mpl-data/sample_data/*.jpg"),
    ("matplotlib", "mpl-data/sample_data/*.png"),
)
WORDS = [
    "patient",
    "chest",
    "report",
    "normal",
    "findings",
    "lungs",
    "clear",
    "heart",
    "size",
    "impression",
    "no",
    "acute",
    "disease",
    "left",
    "right",
]
Picture = tuple[str, str, np.ndarray]


def other_pictures(folder: Path) -> Iterator[Picture]:
    """Kind, name of the original, and (H, W) uint8 pixels; several cuts of one original bear one name."""
    for index in range(30):
        yield "page", f"page {index}", _page(np.random.default_rng([1, index]))
        yield "noise", f"noise {index}", _noise(np.random.default_rng([2, index]), (index % 6) / 2)
        yield "shapes", f"shapes {index}", _shapes(np.random.default_rng([4, index]))
        yield "limb", f"limb {index}", _limb(np.random.default_rng([5, index]), 1 + index % 5)
    rng = np.random.default_rng(0)
    for path in _sample_files():
        yield from _cuts("photograph", path.name, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), rng)
    for name, pixels in _medical(folder):
        yield from _cuts("medical", name, pixels, rng)


def _cuts(kind: str, name: str, pixels: np.ndarray, rng: np.random.Generator) -> Iterator[Picture]:
    yield kind, name, pixels
    for number in range(4):
        height, width = (int(side * rng.uniform(0.45, 0.9)) for side in pixels.shape)
        top, left = (int(rng.integers(side - cut + 1)) for side, cut in zip(pixels.shape, (height, width), strict=True))
        cut = pixels[top : top + height, left : left + width]
        yield kind, name, np.ascontiguousarray(cut[:, ::-1] if number % 2 else cut)


def _sample_files() -> list[Path]:
    folders = {name: find_spec(name) for name, _ in SAMPLES}
    places = {name: Path(spec.origin).parent for name, spec in folders.items() if spec and spec.origin}
    return [path for name, pattern in SAMPLES if name in places for path in sorted(places[name].glob(pattern))]


def _medical(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """What pydicom ships and what ``folder`` holds, but for chest films, whatever their headers say."""
    config = DecodeConfig.defaults().model_copy(update={"min_side": 16})
    shipped = Path(pydicom.__file__).parent / "data" / "test_files"
    for path in (*sorted(folder.glob("*.dcm")), *sorted(shipped.glob("*.dcm"))):
        if path.name.startswith(CHESTS):
            continue
        try:
            dataset = pydicom.dcmread(path)
            dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
            buffer = io.BytesIO()
            pydicom.dcmwrite(buffer, dataset)
            pixels = decode_image(buffer.getvalue(), config).pixels
        except (ImageRejected, Exception):  # broken on purpose, most of them
            continue
        original = "SC" if path.name.startswith("SC_") else path.name[:3]
        yield original, pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    brain = Path(find_spec("matplotlib").origin).parent / "mpl-data/sample_data/s1045.ima.gz"  # type: ignore
    slice_ = np.frombuffer(gzip.decompress(brain.read_bytes()), np.uint16).reshape(256, 256)
    yield "s1045", (slice_ / slice_.max() * 255).astype(np.uint8)


def _page(rng: np.random.Generator) -> np.ndarray:
    page = np.full((int(rng.integers(500, 900)), int(rng.integers(400, 700))), 255, np.uint8)
    for row in range(30, len(page) - 20, int(rng.integers(14, 40))):
        line = " ".join(rng.choice(WORDS, int(rng.integers(3, 12))))
        cv2.putText(page, line, (20, row), int(rng.integers(0, 5)), rng.uniform(0.35, 1.1), int(rng.integers(0, 80)))
    return page


def _noise(rng: np.random.Generator, power: float) -> np.ndarray:
    """Noise whose amplitude falls as a power of the frequency: from white to clouds."""
    height, width = (int(side) for side in rng.integers(200, 700, 2))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency**power, s=(height, width))
    low, high = np.percentile(noise, [1, 99])
    return (np.clip((noise - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _shapes(rng: np.random.Generator) -> np.ndarray:
    canvas = np.full((512, 448), float(rng.integers(0, 255)), np.float32)
    for _ in range(int(rng.integers(2, 9))):
        centre, axes = (int(rng.integers(448)), int(rng.integers(512))), rng.integers(15, 200, 2).tolist()
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.integers(0, 255)), -1)
    canvas = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.5, 12)))
    return np.clip(canvas + rng.normal(0, rng.uniform(0, 10), canvas.shape), 0, 255).astype(np.uint8)


def _limb(rng: np.random.Generator, shafts: int) -> np.ndarray:
    """Bright shafts in soft tissue on black: an arm, or the fingers of a hand."""
    film = np.zeros((600, 440), np.float32)
    for number in range(shafts):
        place = number - (shafts - 1) / 2
        centre = (int(220 + place * rng.uniform(55, 80)), int(rng.uniform(260, 330)))
        width = rng.uniform(14, 60) if shafts > 2 else rng.uniform(60, 110)
        for share, gray in ((1.0, 0.35), (0.45, 0.8)):
            part = np.zeros_like(film)
            cv2.ellipse(part, centre, (int(width * share), 280), place * rng.uniform(2, 9), 0, 360, 1, -1)
            film = np.maximum(film, cv2.GaussianBlur(part, (0, 0), 5) * gray)
    film = cv2.GaussianBlur(film + rng.normal(0, 0.02, film.shape).astype(np.float32), (0, 0), 1.2)
    return (np.clip(film, 0, 1) * 255).astype(np.uint8)
