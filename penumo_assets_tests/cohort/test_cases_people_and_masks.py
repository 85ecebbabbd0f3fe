"""What people write for a person, an age, a view or nothing at all, and how they keep masks: kinds, not cases."""

import pytest

from penumo_assets.cohort.labels import parse_labels
from penumo_assets.cohort.names import is_mask_folder
from penumo_assets.cohort.truths import NOT_LUNG, mask_names, pair_masks
from penumo_assets.configs.prepare import LabelsConfig
from penumo_assets.imaging.person import age_as_written, is_missing, sex_code
from penumo_assets.imaging.view import view_code

KEPT = LabelsConfig(file_names="keep", classes=[])


@pytest.mark.parametrize(
    "words",
    [
        "NO NAME",
        "unknown patient",
        "Anonymous^Patient",
        "keine Angabe",
        "sin dato",
        "неизвестно",
        "未知",
        "없음",
        "#REF!",
        "#VALUE!",
        "#NAME?",
        "-1",
        "-9.0",
        "XXXX",
        " 1.23E+11 ",
    ],
)
def test_words_numbers_and_errors_that_stand_for_no_id_are_none(words: str) -> None:
    assert is_missing(words)


@pytest.mark.parametrize("patient", ["P-001", "NA12", "Name 12", "IDA", "patient00001", "X1", "-12345", "No-7"])
def test_an_id_that_holds_such_a_word_is_one(patient: str) -> None:
    assert not is_missing(patient)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("F - Female", "F"),
        ("male (M)", "M"),
        ("m/f", None),
        ("weibl.", "F"),
        ("Nam", "M"),
        ("nữ", "F"),
        ("♀", "F"),
        ("laki-laki", "M"),
        ("Άνδρας", "M"),
        ("non-binary", "O"),
        ("Female patient", None),
    ],
)
def test_a_sex_may_be_written_twice_but_not_both_ways(written: str, code: str | None) -> None:
    assert sex_code(written) == code


@pytest.mark.parametrize(
    ("written", "years"),
    [
        (">89", 90),
        ("≥ 90", 90),
        ("90+", 90),
        (">44", 45),
        ("45 y.o.", 45),
        ("45-year-old", 45),
        ("2y 3m", 2),
        ("2 years 3 months", 2),
        ("58岁", 58),
        ("58 лет", 58),
        ("45-50", None),
        ("<1", None),
        ("3-6", None),
    ],
)
def test_an_age_may_be_capped_and_have_months(written: str, years: int | None) -> None:
    assert age_as_written(written) == years


@pytest.mark.parametrize(
    ("written", "code"),
    [("P.A.", "PA"), ("a-p", "AP"), ("Thorax p.a.", "PA"), ("POSTERO_ANTERIOR", "PA"), ("A.", None)],
)
def test_a_view_may_be_written_in_letters_with_points(written: str, code: str | None) -> None:
    assert view_code(written) == code


@pytest.mark.parametrize(
    "row",
    ["2,,,,", ",,,,PA", ",\u00a0,\u200b,\ufeff,", "\x1a"],
)
def test_a_row_that_names_no_film_patient_or_label_is_none(row: str) -> None:
    table = f"number,file,patient_id,label,view\n1,a.png,P1,normal,PA\n{row}\n"
    assert list(parse_labels(table.encode(), "c", KEPT, None)) == ["a.png"]


@pytest.mark.parametrize("cell", ['"=""007"""', "'007"])
def test_a_number_that_a_spreadsheet_keeps_as_text_keeps_its_zeros(cell: str) -> None:
    labels = parse_labels(f"file,patient_id,label\na.png,{cell},normal\n".encode(), "c", KEPT, None)
    assert labels["a.png"].patient_id == "007"


@pytest.mark.parametrize(
    "folder",
    [
        "Segmentation",
        "segs",
        "GT",
        "Ground-truths",
        "Masken",
        "máscaras",
        "Infection Mask",
        "masks2",
        "masks (1)",
        "train_masks",
        "mask_images",
        "Masks_resized",
        "HeartMasks",
    ],
)
def test_a_folder_of_masks_is_known_in_other_words(folder: str) -> None:
    assert is_mask_folder(folder)


@pytest.mark.parametrize(
    "folder",
    ["masked", "unmasked", "Lung Segmentation Data", "lung_mask_dataset", "images and masks", "right", "damasked"],
)
def test_a_folder_that_speaks_of_masks_may_hold_films(folder: str) -> None:
    assert not is_mask_folder(folder)


@pytest.mark.parametrize("mask", ["gt/mask_a.png", "masks/a_segmentation.png", "masks/a_seg.png", "x/a_gt.png"])
def test_a_mask_is_its_films_own_by_a_name_with_another_word_for_mask(mask: str) -> None:
    names = {"x/a.png", mask} if mask.startswith("x/") else {"images/a.png", mask}
    assert mask_names(names) == {mask}
    assert list(pair_masks(names - {mask}, {mask}).of_film.values()) == [(mask,)]


@pytest.mark.parametrize(
    "mask", ["masks/heart/a.png", "infection masks/a.png", "HeartMask/a.png", "masks/left clavicle/a.png"]
)
def test_a_mask_of_another_part_is_named_and_no_lungs(mask: str) -> None:
    lungs = "lung masks/a.png"
    truths = pair_masks({"images/a.png"}, {mask, lungs})
    assert truths.of_film == {"images/a.png": (lungs,)}
    assert truths.unpaired == {mask: NOT_LUNG}
    assert pair_masks({"images/a.png"}, {mask}).of_film == {}
