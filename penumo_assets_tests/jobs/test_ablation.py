"""benchmarks/ablation.py on phantoms: its table, and that a choice which changes nothing is worth nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import penumo_assets
from penumo_assets.phantoms import write_cohort
from penumo_assets_tests.house import open_house

PROGRAM = Path(penumo_assets.__file__).parents[1] / "benchmarks" / "ablation.py"
STAGES = ("raw_images", "lung_masks", "preprocessed_images", "npz_tensors")
INTERVAL = r"[+-]0\.\d{3} \[-?\d\.\d{3}, -?\d\.\d{3}\]"


@pytest.mark.slow
def test_a_table_of_what_choices_are_worth(tmp_path: Path) -> None:
    with open_house(tmp_path) as house:
        write_cohort(tmp_path / "ward", "ward", patients=100, seed=0, dicom=False, broken=False)
        house.land("ward", tmp_path / "ward")
        house.materialize(*STAGES, partition="ward")
    root = tmp_path / "root"
    flags = ["--splits", "1", "--resolution", "32", "--epochs", "2", "--threads", "1", "--only", "another seed"]
    command = [sys.executable, PROGRAM, f"shipped={root}", f"again={root}", *flags]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    head, _, *rows = answer.stdout.splitlines()
    assert head == "| variant | ward | within | worth |"
    cells = {row.split(" | ")[0].strip("| "): [cell.strip(" |") for cell in row.split(" | ")[1:]] for row in rows}
    shortcuts = ["aspect ratio alone", "mean intensity alone", "source bytes alone"]
    assert list(cells) == [*shortcuts, "shipped", "again", "another seed"]
    assert cells["shipped"][:2] == cells["again"][:2]
    assert cells["again"][2].startswith("+0.000")
    assert re.fullmatch(INTERVAL, cells["another seed"][2])
