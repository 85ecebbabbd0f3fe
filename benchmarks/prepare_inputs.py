"""Inputs of benchmarks/prepare.py: the same radiographs in four formats, their masks, and a job folder around them."""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from penumo_assets.cohort.plan import image_id_of
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.decode import encode_png
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.jobs.manifest import STAGES, ManifestRow, StageOutput
from penumo_assets.jobs.prepare.work import WorkItem, dump_work
from penumo_assets.phantoms import draw_phantom

FORMATS = {"jpeg": ".jpg", "png": ".png", "dicom": ".dcm", "jpeg2000": ".dcm"}
WINDOW_CENTER, WINDOW_WIDTH = 2048, 3600


@dataclass(frozen=True)
class Film:
    """A radiograph as it lies on disk, with its lung mask as a 512x512 PNG in letterbox coordinates."""

    path: Path
    mask: Path


def make_films(folder: Path, kind: str, count: int, side: int, data: Path | None) -> list[Film]:
    """``count`` films of a format: phantoms of ``side`` x ``side``, or the files of that format below ``data``."""
    folder.mkdir(parents=True, exist_ok=True)
    if data is not None:
        suffixes = {"jpeg": (".jpg", ".jpeg"), "png": (".png",)}.get(kind, (".dcm",))
        paths = [path for path in sorted(data.rglob("*")) if path.suffix.lower() in suffixes][:count]
        return [Film(path, _whole_mask(path, folder)) for path in paths]
    films = []
    for seed in range(count):
        drawing = folder.parent / f"phantom-{side}-{seed}.npz"
        if not drawing.exists():
            image, mask = draw_phantom(seed, height=side, width=side)
            np.savez(drawing, image=image, mask=mask)
        with np.load(drawing) as arrays:
            image, mask = arrays["image"], arrays["mask"]
        film = Film(folder / f"{kind}-{seed}{FORMATS[kind]}", folder / f"{kind}-{seed}.mask.png")
        film.path.write_bytes(_encoded(image, kind, seed))
        film.mask.write_bytes(encode_png(Letterbox.fit(side, side).apply(mask, nearest=True)))
        films.append(film)
    return films


def _whole_mask(path: Path, folder: Path) -> Path:
    """For a film without a known mask: all of its content."""
    height, width = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).shape
    mask = np.zeros((512, 512), np.uint8)
    mask[Letterbox.fit(height, width).content] = 255
    target = folder / f"{path.stem}.mask.png"
    target.write_bytes(encode_png(mask))
    return target


def _encoded(image: np.ndarray, kind: str, seed: int) -> bytes:
    """12-bit pixels as a file: 8 bits in JPEG (quality 90, the bits per pixel of real films) and PNG, 12 in DICOM."""
    buffer = io.BytesIO()
    if kind in ("jpeg", "png"):
        options = {"quality": 90} if kind == "jpeg" else {"compress_level": 6}
        Image.fromarray((image >> 4).astype(np.uint8)).save(buffer, kind, **options)
        return buffer.getvalue()
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["benchmark", str(seed)])
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID, dataset.Modality, dataset.ViewPosition = f"BENCH-{seed}", "DX", "PA"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = image.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.WindowCenter, dataset.WindowWidth = WINDOW_CENTER, WINDOW_WIDTH
    dataset.PixelData = image.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    if kind == "jpeg2000":
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def lay_out_job(root: Path, films: list[Film], count: int, config: PrepareConfig, *, segment: bool) -> None:
    """The container layout of a prepare job for ``count`` images (films repeat as hard links of other names).

    Without ``segment`` the masks lie there as an earlier materialization's output.
    """
    inputs = root / "processing" / "input"
    for name in ("work", "landing", "masks/bench"):
        (inputs / name).mkdir(parents=True)
    items = []
    for index in range(count):
        film = films[index % len(films)]
        source = f"{index:05d}{film.path.suffix}"
        row = ManifestRow(image_id=image_id_of(source), source=source, source_etag=str(index), source_bytes=0)
        _link(film.path, inputs / "landing" / source)
        compute = list(STAGES)
        if not segment:
            compute.remove("masks")
            key = f"masks/bench/{row.image_id}.png"
            _link(film.mask, inputs / key)
            row.stages["masks"] = StageOutput(key=key, sha256="0", fingerprint="0")
        items.append(WorkItem(row=row, landed=source, compute=compute, fingerprints=dict.fromkeys(compute, "0")))
    (inputs / "work" / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    (inputs / "work" / "work.jsonl").write_bytes(dump_work(items))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        target.symlink_to(source.resolve())
