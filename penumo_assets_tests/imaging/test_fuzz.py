"""Damaged files: whatever the bytes, one documented exception, soon and without much memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from penumo_assets_tests.imaging import fuzz
from penumo_assets_tests.imaging.samples import all_samples

_SECONDS = 5.0
_MEBIBYTES = 1024


def _fuzz(count: int, seed: int, *folder: str) -> dict:
    command = [sys.executable, "-m", "penumo_assets_tests.imaging.fuzz", str(count), str(seed), *folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    tail = "\n".join(done.stderr.splitlines()[-15:])
    assert done.returncode == 0, f"the decoder took its process with it; last mutations:\n{tail}"
    report = json.loads(done.stdout.splitlines()[-1])
    assert sum(report["outcomes"].values()) + len(report["unexpected"]) == count
    return report


def _assert_promises(report: dict) -> None:
    assert not report["unexpected"]
    assert report["slowest_seconds"] < _SECONDS, report["slowest"]
    assert report["peak_growth_mib"] < _MEBIBYTES
    assert report["outcomes"]["decoded"] > 0, "no mutation reached the end of a decoder"
    assert len(report["outcomes"]) > 5, "the mutations reach too few of the checks"


def test_a_sample_of_damaged_files_is_decoded_or_refused() -> None:
    _assert_promises(_fuzz(420, seed=0))


def test_mutations_are_reproducible_and_damage_the_file() -> None:
    data = all_samples()["gray.png"]
    first = fuzz.mutate(data, np.random.default_rng(1))
    assert first == fuzz.mutate(data, np.random.default_rng(1))
    assert sum(fuzz.mutate(data, np.random.default_rng(seed)) != data for seed in range(50)) > 45


@pytest.mark.fuzz
def test_four_thousand_damaged_samples_are_decoded_or_refused() -> None:
    _assert_promises(_fuzz(4_000, seed=1))


@pytest.mark.fuzz
@pytest.mark.real
@pytest.mark.parametrize("folder", ["dicom/files", "pneumonia/originals"])
def test_damaged_real_files_are_decoded_or_refused(folder: str) -> None:
    root = os.environ.get("PENUMO_REAL_DATA")
    if not root:
        pytest.skip("PENUMO_REAL_DATA is not set")
    _assert_promises(_fuzz(1_500, 2, str(Path(root) / folder)))
