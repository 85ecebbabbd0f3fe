"""DICOM files with recursive sequences, lying lengths, crowds of elements and bombs: each one gets a code, soon."""

import logging
from pathlib import Path

import pytest

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets_tests.imaging.samples import SECRET
from penumo_assets_tests.trust import hostile_dicom
from penumo_assets_tests.trust.hostile_measure import measure

pytestmark = pytest.mark.trust

_SECONDS = 5.0


@pytest.mark.parametrize("kind", [hostile_dicom.depths, hostile_dicom.crowds])
def test_thousands_of_levels_or_items_are_corrupt_soon_and_in_little_memory(kind, tmp_path: Path) -> None:
    found = measure(tmp_path, kind())
    assert {item["code"] for item in found.values()} == {"corrupt"}, found
    assert max(item["seconds"] for item in found.values()) < _SECONDS, found
    assert sum(item["mebibytes"] for item in found.values()) < 100, found


def test_however_a_deflated_bomb_hides_it_is_measured_before_it_is_inflated(tmp_path: Path) -> None:
    found = measure(tmp_path, hostile_dicom.deflated_bombs(), megapixels=8)
    assert {item["code"] for item in found.values()} == {"too_large"}, found
    assert sum(item["mebibytes"] for item in found.values()) < 40, found


def test_a_deflated_file_within_a_deflated_file_is_not_inflated_twice() -> None:
    with pytest.raises(ImageRejected) as caught:
        decode_image(hostile_dicom.deflated_twice(), DecodeConfig())
    assert caught.value.code == "corrupt"


@pytest.mark.parametrize("kind", [hostile_dicom.lengths, hostile_dicom.types])
def test_a_wrong_length_or_type_is_rejected_or_makes_no_difference(kind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good = decode_image(hostile_dicom.film(), DecodeConfig())
    said = []
    for name, data in kind().items():
        try:
            decoded = decode_image(data, DecodeConfig())
        except ImageRejected as rejection:
            said.append(rejection.reason)
        else:
            assert (decoded.pixels == good.pixels).all(), name
    assert said
    assert SECRET not in " ".join([*said, caplog.text])


@pytest.mark.parametrize("name", hostile_dicom.pixels())
def test_pixel_data_that_is_not_what_the_header_says_has_its_code(name: str) -> None:
    data, code = hostile_dicom.pixels()[name]
    try:
        decode_image(data, DecodeConfig())
        found = "decoded"
    except ImageRejected as rejection:
        found = rejection.code
    assert found == code


def test_padding_behind_the_pixels_is_not_parsed() -> None:
    # Parsed, these zeros would be half a million elements, which is more than an image can need.
    padded = decode_image(hostile_dicom.film() + bytes(4_000_000), DecodeConfig())
    assert (padded.pixels == decode_image(hostile_dicom.film(), DecodeConfig()).pixels).all()
