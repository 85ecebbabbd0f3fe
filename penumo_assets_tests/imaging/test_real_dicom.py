"""Every file of a folder of public DICOM files is decoded, or refused for what it really is."""

import os
from pathlib import Path

import numpy as np
import pytest

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.errors import ImageRejected

EXPECTED = {
    "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm": "decoded",
    "CR-MONO1-10-chest.dcm": "decoded",
    "CR-ModalitySequenceLUT.dcm": "decoded",
    "CT_small.dcm": "not_a_radiograph",
    "Fake_MONOHR1.dcm": "decoded",
    "JPEG2000-embedded-sequence-delimiter.dcm": "not_a_radiograph",
    "JPGLosslessP14SV1_1s_1f_8b.dcm": "not_a_radiograph",
    "MR_small.dcm": "not_a_radiograph",
    "MR_small_RLE.dcm": "not_a_radiograph",
    "MR_small_bigendian.dcm": "not_a_radiograph",
    "MR_small_implicit.dcm": "not_a_radiograph",
    "NM_Kakadu44_SOTmarkerincons.dcm": "not_chest",
    "OBXXXX1A.dcm": "not_a_radiograph",
    "OT-PAL-8-face.dcm": "decoded",
    "RG1_J2KI.dcm": "decoded",
    "RG1_JLSN.dcm": "decoded",
    "RG2_JLSL.dcm": "not_chest",
    "RG2_JLSN.dcm": "not_chest",
    "RG2_JPLY.dcm": "not_chest",
    "RG2_JPLY_fixed.dcm": "not_chest",
    "RG3_J2KI.dcm": "not_chest",
    "RG3_J2KR.dcm": "not_chest",
    "SC_rgb_32bit.dcm": "unsupported_depth",
    "SC_rgb_expb.dcm": "decoded",
    "SC_rgb_jpeg_dcmtk.dcm": "decoded",
    "bad_sequence.dcm": "not_a_radiograph",
    "chrJapMulti.dcm": "no_pixel_data",
    "eCT_Supplemental.dcm": "not_a_radiograph",
    "empty_charset_LEI.dcm": "no_pixel_data",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "truncated",
    "image_dfl.dcm": "decoded",
    "meta_missing_tsyntax.dcm": "bad_header",
    "multiframe.dcm": "multi_frame",
    "nested_priv_SQ.dcm": "bad_header",
    "no_meta_group_length.dcm": "no_pixel_data",
    "rtplan_truncated.dcm": "not_a_radiograph",
    "test-SR.dcm": "not_a_radiograph",
}

pytestmark = pytest.mark.real


def folder() -> Path:
    root = os.environ.get("PENUMO_REAL_DATA")
    if not root:
        pytest.skip("PENUMO_REAL_DATA is not set")
    return Path(root) / "dicom" / "files"


def pixels(name: str) -> np.ndarray:
    return decode_image((folder() / name).read_bytes(), DecodeConfig()).pixels


def test_every_file_is_expected() -> None:
    assert {path.name for path in folder().iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_real_file_is_decoded_or_refused_for_what_it_is(name: str) -> None:
    try:
        decode_image((folder() / name).read_bytes(), DecodeConfig())
        outcome = "decoded"
    except ImageRejected as error:
        outcome = error.code
    assert outcome == EXPECTED[name]


def test_two_compressions_of_one_exposure_give_one_picture() -> None:
    difference = np.abs(pixels("RG1_J2KI.dcm").astype(float) - pixels("RG1_JLSN.dcm"))
    assert difference.mean() / 65535 < 0.005


@pytest.mark.parametrize("name", ["CR-MONO1-10-chest.dcm", "RG1_J2KI.dcm"])
def test_lungs_are_darker_than_the_spine(name: str) -> None:
    chest = pixels(name).astype(float)
    height, width = chest.shape
    rows = slice(int(0.35 * height), int(0.55 * height))
    lung = chest[rows, int(0.25 * width) : int(0.35 * width)].mean()
    spine = chest[rows, int(0.47 * width) : int(0.53 * width)].mean()
    assert lung < spine
