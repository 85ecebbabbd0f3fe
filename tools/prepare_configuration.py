"""Write docs/prepare_configuration.md and its pictures from the configuration's own models.

    python tools/prepare_configuration.py

Each picture shows a phantom radiograph before (left) and after (right) one setting is changed. The
code itself draws it, so a picture cannot disagree with the code.
"""

import io
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from penumo_assets.configs.base import leaves
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.decode import decode_image, encode_png
from penumo_assets.imaging.enhance import enhance
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.phantoms import draw_phantom

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "images" / "prepare"
SIDE = 160


@dataclass(frozen=True)
class Example:
    """One changed setting; ``base`` is what both sides have in common beside the defaults."""

    change: Any
    base: dict[str, Any] | None = None


EXAMPLES: dict[str, Example] = {
    "decode.window_low_percentile": Example(25.0),
    "decode.window_high_percentile": Example(75.0),
    "enhance.crop_to_lungs": Example(False),
    "enhance.crop_margin": Example(0.4),
    "enhance.keep_aspect": Example(True),
    "enhance.apply_mask": Example(True),
    "enhance.colour": Example("rgb", {"decode.keep_colour": True}),
    "enhance.clahe.enabled": Example(False),
    "enhance.clahe.clip_limit": Example(8.0),
    "enhance.clahe.tile_grid": Example(2),
    "enhance.gaussian_blur.enabled": Example(
        False, {"enhance.gaussian_blur.kernel_size": 13, "enhance.gaussian_blur.sigma": 4.0}
    ),
    "enhance.gaussian_blur.kernel_size": Example(13, {"enhance.gaussian_blur.sigma": 4.0}),
    "enhance.gaussian_blur.sigma": Example(4.0, {"enhance.gaussian_blur.kernel_size": 13}),
    "enhance.min_max.enabled": Example(False, {"enhance.clahe.enabled": False}),
    "enhance.min_max.low_percentile": Example(20.0),
    "enhance.min_max.high_percentile": Example(80.0),
    "enhance.sharpen.enabled": Example(True),
    "enhance.sharpen.amount": Example(2.5, {"enhance.sharpen.enabled": True}),
    "enhance.sharpen.sigma": Example(6.0, {"enhance.sharpen.enabled": True}),
}

INTRODUCTION = """# Configuration of the preparation

`penumo_assets/configs/prepare_config.yaml` holds these values for all cohorts, and [a cohort's own
settings](operations.md#settings) what differs for it; the Dagster launchpad shows the same keys.
Where a setting changes the picture, it is shown before (left) and after (right) the change named above it, on
a phantom radiograph. Settings without a picture decide whether an image is used, or under which name.

With `decode.reduce_to`, JPEG and JPEG 2000 are decoded at the reduced scale and everything else is averaged down.
Tensors then differ from those of the whole image by at most 1.5 of 255 gray levels on average and 12 in all but a
thousandth of the pixels (held by a test, for every format); masks and the manifest keep the original's geometry.
A JPEG 2000 image of more than 24 million pixels is always reduced, because decoding it whole takes many seconds; it
is refused where its stream holds no smaller versions.

This page and its pictures are written by `python tools/prepare_configuration.py`.

| Key | Default | What it does | Effect |
|---|---|---|---|
"""


def page() -> str:
    """The Markdown of the whole page."""
    rows = []
    for key, default, description in leaves(PrepareConfig()):
        effect = ""
        if key in EXAMPLES:
            effect = f"`{_shown(EXAMPLES[key].change)}`<br>![{key}](images/prepare/{key}.png)"
        rows.append(f"| `{key}` | `{_shown(default)}` | {description} | {effect} |")
    return INTRODUCTION + "\n".join(rows) + "\n"


def picture(key: str) -> np.ndarray:
    """Defaults and changed setting side by side, (SIDE, 2 * SIDE + 4, 3) uint8 RGB."""
    example = EXAMPLES[key]
    base = example.base or {}
    dicom = key.startswith("decode.window")
    sides = [_prepared(_config(changes), dicom=dicom) for changes in (base, {**base, key: example.change})]
    gap = np.full((SIDE, 4, 3), 255, np.uint8)
    shown = [cv2.resize(side, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for side in sides]
    return np.hstack((shown[0], gap, shown[1]))


def _prepared(config: PrepareConfig, *, dicom: bool) -> np.ndarray:
    phantom, mask = draw_phantom(7, height=640, width=760)
    image = decode_image(_dicom(phantom) if dicom else _coloured_png(phantom), config.decode)
    box = Letterbox.fit(*phantom.shape)
    return enhance(box.apply(image.pixels), box.apply(mask, nearest=True), box.content, config.enhance).image


def _coloured_png(phantom: np.ndarray) -> bytes:
    """The phantom with a red marker, so that keeping colour shows."""
    colour = cv2.merge([(phantom >> 4).astype(np.uint8)] * 3)
    cv2.putText(colour, "L", (560, 130), cv2.FONT_HERSHEY_DUPLEX, 2.5, (255, 40, 40), 6, cv2.LINE_AA)
    return encode_png(colour)


def _dicom(phantom: np.ndarray) -> bytes:
    """The phantom as a DICOM file without a window."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Modality, dataset.PhotometricInterpretation = "DX", "MONOCHROME2"
    dataset.Rows, dataset.Columns = phantom.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = phantom.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


def _config(changes: dict[str, Any]) -> PrepareConfig:
    values: dict[str, Any] = {}
    for key, value in changes.items():
        *groups, name = key.split(".")
        target = values
        for group in groups:
            target = target.setdefault(group, {})
        target[name] = value
    return PrepareConfig.parse(values)


def _shown(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in EXAMPLES:
        pixels = picture(name)
        gray = np.array_equal(pixels[..., 0], pixels[..., 1])
        (PICTURES / f"{name}.png").write_bytes(encode_png(pixels[..., 0] if gray else pixels))
    (DOCS / "prepare_configuration.md").write_text(page(), encoding="utf-8")
