"""One landing folder full of attacks and two good films: the real graph takes the two and names every other file."""

import re
from collections import Counter
from pathlib import Path

import pytest

from penumo_assets.cohort.publish import read_manifest
from penumo_assets.imaging.pack import SHAPE, load_npz
from penumo_assets.phantoms import write_cohort
from penumo_assets_tests.house import open_house
from penumo_assets_tests.imaging.samples import png_bytes
from penumo_assets_tests.trust import hostile_dicom
from penumo_assets_tests.trust.hostile_folder import LINKS, ODD_NAMES, SPECIAL, within, write_odd_files
from penumo_assets_tests.trust.hostile_images import GRAY, bombs, giants

pytestmark = [pytest.mark.trust, pytest.mark.slow]

SETTINGS = {"npz": {"filename": "{patient_id}_{image_id}"}, "labels": {"file_names": "keep"}}
CONTRACT = Path(__file__).parents[2] / "docs" / "data_contract.md"
COHORT = "ward-7"
# An image that could be read, but its row of labels.csv, the patient's id or the label, is an attack.
BAD_ROWS = {
    "path_id.png": ("../../../etc/passwd", "normal", "unsafe_patient_id"),
    "html_id.png": ("<script>alert(1)</script>", "normal", "unsafe_patient_id"),
    "reserved_id.png": ("NUL", "normal", "unsafe_patient_id"),
    "hidden_id.png": ("P\u200b1", "normal", "unsafe_patient_id"),
    "endless_id.png": ("P" * 1000, "normal", "unsafe_patient_id"),
    "nul_id.png": ("P\x001", "normal", "malformed_label"),
    "html_label.png": ("P2", "<img src=x onerror=alert(1)>", "unknown_label"),
    "formula_label.png": ("P3", "=HYPERLINK(1)", "unknown_label"),
}
ABSENT = ("../../../../etc/passwd", "/etc/passwd", "wards/secret.png", "=1+1.png")


def write_attacks(folder: Path, outside: Path) -> dict[str, str]:
    """Fill a landing folder; the code that each source must be rejected with."""
    write_odd_files(folder, outside, png_bytes(GRAY))
    (folder / "hard.png").unlink()
    expected = dict.fromkeys((*LINKS, *SPECIAL), "not_a_file") | dict.fromkeys(ODD_NAMES.values(), "unsafe_name")
    files = giants() | {name: item for name, item in bombs().items() if item[1] != "decoded"}
    files |= {name: (data, "corrupt") for name, data in (hostile_dicom.crowds() | hostile_dicom.depths()).items()}
    files |= {name: item for name, item in hostile_dicom.pixels().items() if item[1] != "decoded"}
    files["an id that a pseudonym would hide"] = (hostile_dicom.film(PatientID="P\x011"), "unsafe_patient_id")
    for number, (data, code) in enumerate(files.values()):
        (folder / f"attack {number:02}.dcm").write_bytes(data)
        expected[f"attack {number:02}.dcm"] = code
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(1 << 40)
    for name in BAD_ROWS:
        (folder / name).write_bytes(png_bytes(GRAY))
    rows = [f'{name},"{patient}","{label}"' for name, (patient, label, _) in BAD_ROWS.items()]
    rows += [f"{name},P9,normal" for name in ABSENT]
    with (folder / "labels.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"{row},,,,,true\n" for row in rows)
    return (
        expected
        | {"sparse.png": "too_large"}
        | {name: code for name, (_, _, code) in BAD_ROWS.items()}
        | dict.fromkeys((name.lstrip("/") for name in ABSENT), "missing_file")  # a leading slash means the folder
    )


def test_two_good_films_become_tensors_and_every_attack_stands_in_the_manifest(tmp_path: Path) -> None:
    write_cohort(tmp_path / "films", COHORT, patients=2, seed=1, dicom=False, broken=False)
    with open_house(tmp_path, processes=True) as house, within(300):
        house.land(COHORT, tmp_path / "films")
        landing = house.store.path(f"landing/{COHORT}")
        expected = write_attacks(landing, tmp_path / "outside")
        # A hostile mask costs its image nothing but the comparison.
        masks = sorted((landing / "masks").iterdir())
        masks[0].write_bytes(giants()["png 100,000 x 100,000"][0])
        result = house.materialize(
            "raw_images", "lung_masks", "preprocessed_images", "npz_tensors", partition=COHORT,
            config={"prepare_cohort": SETTINGS},
        )  # fmt: skip
        rows = {row.source: row for row in read_manifest(house.store, COHORT)}
        assert {source: row.code for source, row in rows.items() if row.code} == expected
        good = [row for row in rows.values() if row.status == "accepted"]
        assert {row.patient_id for row in good} >= {f"PHANTOM-{COHORT}-{number:04}" for number in (1, 2)}
        for row in good:
            assert load_npz(house.store.read(row.stages["npz"].key)).shape == SHAPE
        assert any("dice" in row.stages["masks"].facts for row in good), "the good masks are still compared"
        documented = set(re.findall(r"`([a-z_]+)`", CONTRACT.read_text(encoding="utf-8")))
        assert {row.code for row in rows.values() if row.code} <= documented
        assert all(row.reason and str(tmp_path) not in row.reason for row in rows.values() if row.code)
        shown = str([event.event_specific_data for event in result.all_events])
    assert str(tmp_path / "outside") not in shown
    assert Counter(expected.values())["corrupt"] > 10
