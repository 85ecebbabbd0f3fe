import csv
import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from sklearn.metrics import roc_auc_score

from penumo_assets.phantoms import draw_phantom, write_cohort
from penumo_assets.phantoms.cohort import PLANTED_BIRTH_DATE, PLANTED_NAME, TEXT_FILE, TRUNCATED_FILE, plan_cohort
from penumo_assets.phantoms.radiograph import LABELS

PATIENTS = 20
SMALL = {"height": 320, "width": 280}


@pytest.fixture(scope="module")
def dicom_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    write_cohort(folder, "hospital", patients=PATIENTS, seed=5, dicom=True)
    return folder


@pytest.fixture(scope="module")
def picture_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    write_cohort(folder, "clinic", patients=PATIENTS, seed=5, dicom=False)
    return folder


@pytest.fixture(params=["dicom_cohort", "picture_cohort"])
def cohort(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def images(folder: Path) -> list[Path]:
    return [path for path in sorted((folder / "images").iterdir()) if not path.name.startswith("broken")]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_phantom_has_twelve_bits_and_a_binary_mask_of_its_size():
    image, mask = draw_phantom(3, height=400, width=500)
    assert image.shape == mask.shape == (400, 500)
    assert image.dtype == np.uint16
    assert 2000 < image.max() <= 4095
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}


def test_the_same_seed_draws_the_same_phantom_and_another_seed_another():
    first, again, other = (draw_phantom(seed, **SMALL)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(12))
def test_the_mask_is_two_lungs_beside_the_midline_of_plausible_size(seed: int):
    _, mask = draw_phantom(seed, **SMALL)
    count, _, stats, centres = cv2.connectedComponentsWithStats(mask)
    assert count == 3
    assert 0.2 < (mask > 0).mean() < 0.55
    smaller, larger = np.sort(stats[1:, cv2.CC_STAT_AREA])
    assert smaller > 0.75 * larger
    right, left = sorted(centres[1:, 0])
    assert right < SMALL["width"] / 2 < left


def test_the_right_lung_is_wider_than_the_left_on_average():
    wider = []
    for seed in range(20):
        _, mask = draw_phantom(seed, **SMALL)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        right, left = stats[1:][np.argsort(stats[1:, cv2.CC_STAT_LEFT])]
        wider.append(int(right[cv2.CC_STAT_WIDTH]) - int(left[cv2.CC_STAT_WIDTH]))
    assert np.mean(wider) > 0


@pytest.mark.parametrize("seed", range(6))
def test_lungs_are_darker_than_the_mediastinum_and_the_abdomen(seed: int):
    image, mask = draw_phantom(seed, **SMALL)
    rows_of_lung, columns_of_lung = np.nonzero(mask)
    middle = int(np.median(columns_of_lung))
    between = image[rows_of_lung.min() : rows_of_lung.max(), middle - 4 : middle + 4]
    below = image[min(rows_of_lung.max() + 2, SMALL["height"] - 20) : SMALL["height"] - 14, middle - 40 : middle + 40]
    in_lung = np.median(image[mask > 0])
    assert in_lung < 0.8 * np.median(between)
    assert in_lung < 0.8 * np.median(below)


def test_the_mask_holds_the_lung_hidden_behind_the_heart():
    image, mask = draw_phantom(0, **SMALL)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    left = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_LEFT]))
    x, y, width, height = stats[left, :4]
    row = y + round(0.72 * height)
    behind_heart = image[row, x + 4 : x + width // 4]
    lateral = image[row, x + width // 2 : x + 4 * width // 5]
    assert (labels[row, x + 6 : x + width // 4] == left).all()
    assert np.median(behind_heart) > 1.2 * np.median(lateral)


@pytest.mark.parametrize("seed", range(6))
def test_pneumonia_brightens_the_lungs_and_leaves_all_else_alone(seed: int):
    normal, normal_mask = draw_phantom(seed, **SMALL)
    sick, sick_mask = draw_phantom(seed, label="pneumonia", **SMALL)
    assert np.array_equal(normal_mask, sick_mask)
    # Scatter lifts everything a little; the opacities themselves lie inside the lungs.
    gain = sick.astype(int) - normal
    outside = cv2.dilate(normal_mask, np.ones((15, 15))) == 0
    assert gain[normal_mask > 0].max() > 150
    assert np.abs(gain[outside]).max() < 0.25 * gain.max()


def test_a_pacemaker_is_a_small_bright_object():
    without, _ = draw_phantom(4, **SMALL)
    fitted, _ = draw_phantom(4, device=True, **SMALL)
    brighter = fitted.astype(int) - without > 400
    assert 0.001 < brighter.mean() < 0.05


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"seed": 0, "label": "covid"}, "label"),
        ({"seed": -1}, "seed"),
        ({"seed": 0, "height": 20}, "64x64"),
    ],
)
def test_an_impossible_phantom_is_refused(arguments: dict, named: str):
    with pytest.raises(ValueError, match=named):
        draw_phantom(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"cohort": "a", "patients": 0, "seed": 0}, "patients"),
        ({"cohort": "a", "patients": 1, "seed": -1}, "seed"),
        ({"cohort": "../a", "patients": 1, "seed": 0}, "cohort"),
    ],
)
def test_an_impossible_cohort_is_refused_before_anything_is_written(tmp_path: Path, arguments: dict, named: str):
    with pytest.raises(ValueError, match=named):
        write_cohort(tmp_path / "new", dicom=False, **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("dicom", [True, False])
def test_equal_arguments_write_equal_bytes(tmp_path: Path, dicom: bool):
    for name in ("first", "second"):
        write_cohort(tmp_path / name, "site", patients=4, seed=9, dicom=dicom)
    write_cohort(tmp_path / "other", "site", patients=4, seed=10, dicom=dicom)
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    assert digests(tmp_path / "first") != digests(tmp_path / "other")


def test_labels_are_balanced_by_patient(cohort: Path):
    label_of = {row["patient_id"]: row["label"] for row in rows(cohort)}
    assert Counter(label_of.values()) == {"normal": PATIENTS // 2, "pneumonia": PATIENTS // 2}


def test_some_patients_have_two_images_of_one_label(cohort: Path):
    counts = Counter((row["patient_id"], row["label"]) for row in rows(cohort))
    assert len(counts) == PATIENTS
    assert sorted(counts.values()) == [1] * 17 + [2] * 3


def test_every_image_but_one_has_a_row_and_every_image_has_a_mask_of_its_size(cohort: Path):
    listed = [row["file"] for row in rows(cohort)]
    present = {f"images/{path.name}" for path in images(cohort)}
    assert len(listed) == len(set(listed))
    assert len(present - set(listed)) == 1
    assert set(listed) < present
    masks = {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (cohort / "masks").iterdir()}
    assert set(masks) == {path.stem for path in images(cohort)}
    for path in images(cohort):
        if path.suffix == ".dcm":
            header = pydicom.dcmread(path)
            shape = (header.Rows, header.Columns)
        else:
            shape = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape
        assert masks[path.stem].shape == shape


def test_two_cohorts_of_one_seed_share_no_patient_and_no_mask(dicom_cohort: Path, picture_cohort: Path):
    assert not {row["patient_id"] for row in rows(dicom_cohort)} & {row["patient_id"] for row in rows(picture_cohort)}
    masks = [{path.read_bytes() for path in (folder / "masks").iterdir()} for folder in (dicom_cohort, picture_cohort)]
    assert not masks[0] & masks[1]


def test_the_two_broken_files_are_broken_and_can_be_left_out(cohort: Path, tmp_path: Path):
    truncated = (cohort / "images" / TRUNCATED_FILE).read_bytes()
    assert truncated.startswith(b"\x89PNG")
    assert b"IEND" not in truncated
    with pytest.raises(pydicom.errors.InvalidDicomError):
        pydicom.dcmread(cohort / "images" / TEXT_FILE)
    assert not {row["file"] for row in rows(cohort)} & {f"images/{TRUNCATED_FILE}", f"images/{TEXT_FILE}"}
    write_cohort(tmp_path, "whole", patients=1, seed=0, dicom=False, broken=False)
    assert not list((tmp_path / "images").glob("broken*"))


def test_pictures_are_png_of_both_depths_and_jpeg(picture_cohort: Path):
    kinds = Counter(
        (path.suffix, str(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype)) for path in images(picture_cohort)
    )
    assert set(kinds) == {(".png", "uint8"), (".png", "uint16"), (".jpg", "uint8")}


def test_headers_carry_what_ingestion_reads_and_what_it_must_leave_behind(dicom_cohort: Path):
    row_of = {row["file"]: row for row in rows(dicom_cohort)}
    instances = set()
    for path in images(dicom_cohort):
        header = pydicom.dcmread(path)
        instances.add(header.SOPInstanceUID)
        assert header.PatientName == PLANTED_NAME
        assert header.PatientBirthDate == PLANTED_BIRTH_DATE
        assert header.BodyPartExamined == "CHEST"
        assert (header.BitsAllocated, header.BitsStored, header.HighBit) == (16, 12, 11)
        row = row_of.get(f"images/{path.name}")
        if row:
            assert (header.PatientID, header.ViewPosition, header.PatientSex) == (
                row["patient_id"], row["view"], row["sex"],
            )  # fmt: skip
            assert header.PatientAge == f"{int(row['age']):03d}Y"
    assert len(instances) == len(images(dicom_cohort))


def test_a_dicom_cohort_mixes_syntaxes_photometrics_modalities_and_windows(dicom_cohort: Path):
    headers = [pydicom.dcmread(path) for path in images(dicom_cohort)]
    assert {header.file_meta.TransferSyntaxUID for header in headers} == {ExplicitVRLittleEndian, RLELossless}
    assert {header.PhotometricInterpretation for header in headers} == {"MONOCHROME1", "MONOCHROME2"}
    assert {header.Modality for header in headers} == {"CR", "DX"}
    windowed = ["WindowCenter" in header and "WindowWidth" in header for header in headers]
    assert 0.5 < np.mean(windowed) < 1


def test_stored_values_are_inverted_exactly_where_the_header_says_monochrome1(dicom_cohort: Path):
    for path in images(dicom_cohort):
        header = pydicom.dcmread(path)
        pixels = header.pixel_array.astype(int)
        assert pixels.max() <= 4095
        shown = 4095 - pixels if header.PhotometricInterpretation == "MONOCHROME1" else pixels
        mask = cv2.imread(str(dicom_cohort / "masks" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        middle = int(np.median(np.nonzero(mask)[1]))
        rows_of_lung = np.nonzero(mask)[0]
        between = shown[rows_of_lung.min() : rows_of_lung.max(), middle - 6 : middle + 6]
        assert np.median(shown[mask > 0]) < np.median(between)


def test_nothing_planned_for_an_image_predicts_its_label():
    plan = [study for study, listed in plan_cohort("many", 600, np.random.default_rng(3)) if listed]
    sick = [study.label == "pneumonia" for study in plan]
    for feature in ("height", "width", "age", "device"):
        assert 0.44 < roc_auc_score(sick, [getattr(study, feature) for study in plan]) < 0.56, feature
    assert 0.44 < roc_auc_score(sick, [study.width / study.height for study in plan]) < 0.56
    assert 0.44 < roc_auc_score(sick, [study.view == "AP" for study in plan]) < 0.56
    assert 0.44 < roc_auc_score(sick, [study.sex == "F" for study in plan]) < 0.56


def test_the_mean_brightness_does_not_predict_the_label():
    images = [draw_phantom(seed, height=160, width=140, label=LABELS[seed % 2])[0] for seed in range(60)]
    assert 0.3 < roc_auc_score([seed % 2 for seed in range(60)], [image.mean() for image in images]) < 0.7


def test_the_module_needs_neither_torch_nor_dagster():
    program = (
        "import sys, penumo_assets.phantoms\nprint(sorted({'torch', 'dagster', 'mlflow', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
