"""Compressed films that hold two pictures, or one in far too many parts: what is checked is what is decoded."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets_tests.trust import hostile_streams
from penumo_assets_tests.trust.hostile_measure import measure

pytestmark = pytest.mark.trust


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=lambda syntax: syntax.keyword)
def test_an_offset_table_cannot_put_another_picture_in_the_checked_ones_place(syntax: UID, tmp_path: Path) -> None:
    lying, honest = hostile_streams.extended_table(syntax), hostile_streams.honest_table(syntax)
    found = measure(tmp_path, {"honest": honest, "lying": lying})
    assert {item["code"] for item in found.values()} == {"decoded"}, found
    assert found["lying"]["mebibytes"] < 20, found
    assert np.array_equal(*(decode_image(data, DecodeConfig()).pixels for data in (lying, honest)))


def test_a_picture_in_a_box_that_nobody_reads_is_not_the_one_that_is_checked(tmp_path: Path) -> None:
    found = measure(tmp_path, {"decoy": hostile_streams.decoy_in_a_box()})["decoy"]
    assert found["code"] == "size_mismatch"
    assert found["mebibytes"] < 20, found


def test_a_program_in_the_place_of_a_picture_is_corrupt(tmp_path: Path) -> None:
    assert measure(tmp_path, {"postscript": hostile_streams.postscript()})["postscript"]["code"] == "corrupt"


def test_a_picture_in_millions_of_parts_is_refused_before_memory_is_taken_for_them(tmp_path: Path) -> None:
    found = measure(tmp_path, hostile_streams.divided())
    assert {item["code"] for item in found.values()} == {"corrupt"}, found
    assert sum(item["mebibytes"] for item in found.values()) < 20, found


def test_megabytes_in_the_type_of_a_list_are_refused_before_they_become_one(tmp_path: Path) -> None:
    found = measure(tmp_path, hostile_streams.textual())
    assert {item["code"] for item in found.values()} == {"corrupt"}, found
    # A file of 16 MB is read, and the value in it once more.
    assert sum(item["mebibytes"] for item in found.values()) < 60, found
    assert max(item["seconds"] for item in found.values()) < 2, found
