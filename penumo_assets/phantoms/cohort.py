"""Write a cohort of phantoms as a hospital would land it: images/, labels.csv, masks/, and two broken files."""

import csv
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from penumo_assets.phantoms.radiograph import LABELS, WHITE, Seeds, draw_patient

LABEL_COLUMNS = ("file", "patient_id", "label", "finding", "view", "sex", "age", "phantom")
# Planted in every DICOM header, so that a test can prove that ingestion leaves them behind.
PLANTED_NAME = "Phantom^Test"
PLANTED_BIRTH_DATE = "19450508"
TRUNCATED_FILE = "broken_truncated.png"
TEXT_FILE = "broken_text.dcm"

_FINDINGS = {"normal": "No Finding", "pneumonia": "Pneumonia"}
_SECOND_IMAGE_SHARE = 0.15
_DEVICE_SHARE = 0.06
_WINDOW = (1, 99)  # percentiles


@dataclass(frozen=True)
class Study:
    """One image to write: who, what and with which random streams."""

    stem: str
    patient_id: str
    label: str
    view: str
    sex: str
    age: int
    device: bool
    height: int
    width: int
    seeds: Seeds

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        return draw_patient(
            self.seeds,
            height=self.height,
            width=self.width,
            label=self.label,
            device=self.device,
            female=self.sex == "F",
            anteroposterior=self.view == "AP",
        )


def write_cohort(folder: Path, cohort: str, *, patients: int, seed: int, dicom: bool, broken: bool = True) -> None:
    """Write one cohort of phantom radiographs into ``folder``; equal arguments write equal bytes.

    ``labels.csv`` (file, patient_id, label, finding, view, sex, age) has as many normal as pneumonia
    patients (one more normal when ``patients`` is odd); about 15 % of the patients have two images.
    ``images/`` holds DICOM files, or PNG of 8 and 16 bits and some JPEG, and one image of a further
    patient without a row in ``labels.csv``. ``masks/`` holds the lung mask of every image as
    ``<stem>.png``, of the image's size. Nothing about an image but its opacities depends on its label.

    Parameters
    ----------
    folder : Path
        Created where it is missing; files of the same names are replaced.
    cohort : str
        Names the files and the patients (``PHANTOM-<cohort>-0007``).
    patients : int
        Number of labelled patients, at least 1.
    seed : int
        Not negative. Cohorts of one seed differ by their names.
    dicom : bool
        DICOM (CR and DX, 12 bits stored in 16, MONOCHROME1 and 2, uncompressed and RLE) rather than PNG.
    broken : bool
        Add a truncated PNG and a text file named .dcm, both without a row in ``labels.csv``.

    Raises
    ------
    ValueError
        If ``patients``, ``seed`` or ``cohort`` is impossible.
    """
    if patients < 1:
        raise ValueError(f"patients must be at least 1, got {patients}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", cohort):
        raise ValueError(f"cohort must be 1 to 41 characters of [A-Za-z0-9._-], got {cohort!r}")
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng([seed, zlib.crc32(cohort.encode())])
    rows = []
    for study, labelled in plan_cohort(cohort, patients, rng):
        image, mask = study.draw()
        name = _write_dicom(images, study, image, rng) if dicom else _write_picture(images, study, image, rng)
        (masks / f"{study.stem}.png").write_bytes(_encode(".png", mask))
        if labelled:
            finding = _FINDINGS[study.label]
            person = [study.view, study.sex, study.age]
            rows.append([f"images/{name}", study.patient_id, study.label, finding, *person, "true"])
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([LABEL_COLUMNS, *rows])
    if broken:
        whole = _encode(".png", (image >> 4).astype(np.uint8))
        (images / TRUNCATED_FILE).write_bytes(whole[: len(whole) // 2])
        (images / TEXT_FILE).write_text("This is a text file, whatever its name says.\n", encoding="utf-8")


def plan_cohort(cohort: str, patients: int, rng: np.random.Generator) -> list[tuple[Study, bool]]:
    """Every image of a cohort, each with whether ``labels.csv`` lists it; the last one is unlisted."""
    labels = [*rng.permutation([LABELS[index % 2] for index in range(patients)]).tolist(), LABELS[rng.integers(2)]]
    second_images = max(min(1, patients - 1), round(_SECOND_IMAGE_SHARE * patients))
    doubled = set(rng.choice(patients, second_images, replace=False).tolist())
    plan = []
    for index, label in enumerate(labels):
        patient_seed, disease_seed = (int(value) for value in rng.integers(2**32, size=2))
        sex, age = "FM"[rng.integers(2)], int(rng.integers(18, 91))
        for image in range(2 if index in doubled else 1):
            study = Study(
                stem=f"{cohort}_{index + 1:04d}_{image + 1}",
                patient_id=f"PHANTOM-{cohort}-{index + 1:04d}",
                label=label,
                view="AP" if rng.random() < 0.4 else "PA",
                sex=sex,
                age=age,
                device=bool(rng.random() < _DEVICE_SHARE),
                height=int(rng.integers(480, 529)),
                width=int(rng.integers(488, 577)),
                seeds=Seeds(patient=patient_seed, exposure=int(rng.integers(2**32)), disease=disease_seed),
            )
            plan.append((study, index < patients))
    return plan


def _write_picture(folder: Path, study: Study, image: np.ndarray, rng: np.random.Generator) -> str:
    """8-bit PNG, 16-bit PNG or JPEG, whatever the label is.

    Windowed as the DICOM files ask for, because that is what a viewer exports.
    """
    kind = rng.choice(["png8", "png16", "jpeg"], p=[0.5, 0.3, 0.2])
    low, high = np.percentile(image, _WINDOW)
    windowed = np.clip((image - low) / max(1.0, high - low), 0, 1)
    pixels = np.rint(windowed * (65535 if kind == "png16" else 255)).astype(np.uint16 if kind == "png16" else np.uint8)
    suffix = ".jpg" if kind == "jpeg" else ".png"
    (folder / f"{study.stem}{suffix}").write_bytes(_encode(suffix, pixels))
    return f"{study.stem}{suffix}"


def _encode(suffix: str, pixels: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    done, data = cv2.imencode(suffix, pixels, options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a {suffix} file")
    return data.tobytes()


def _write_dicom(folder: Path, study: Study, image: np.ndarray, rng: np.random.Generator) -> str:
    inverted, digital, compressed, windowed = (rng.random(4) < [0.35, 0.5, 0.3, 0.75]).tolist()
    stored = (WHITE - image if inverted else image).astype("<u2")
    dataset = _header(study, digital=digital)
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.SamplesPerPixel = 1
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    if windowed:
        low, high = np.percentile(stored, _WINDOW)
        dataset.WindowCenter, dataset.WindowWidth = round((low + high) / 2), max(2, round(high - low))
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    if compressed:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(folder / f"{study.stem}.dcm", enforce_file_format=True)
    return f"{study.stem}.dcm"


def _header(study: Study, *, digital: bool) -> Dataset:
    """Everything but the pixels: a CR or DX image with identifying fields planted on purpose."""
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = _uid(study, "instance")
    dataset.StudyInstanceUID = _uid(study, "study")
    dataset.SeriesInstanceUID = _uid(study, "series")
    dataset.Modality = "DX" if digital else "CR"
    dataset.PatientID = study.patient_id
    dataset.PatientName = PLANTED_NAME
    dataset.PatientBirthDate = PLANTED_BIRTH_DATE
    dataset.PatientSex = study.sex
    dataset.PatientAge = f"{study.age:03d}Y"
    dataset.StudyDate = "20200101"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = study.view
    dataset.InstanceNumber = 1
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _uid(study: Study, kind: str) -> str:
    """The same UID for the same image every time (pydicom hashes the sources given)."""
    return generate_uid(entropy_srcs=[study.stem, str(study.seeds.exposure), kind])
