"""`decode.reduce_to`: images stored at half, a quarter or an eighth of their size, and what that changes."""

import io
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from penumo_assets.configs.prepare import DecodeConfig, EnhanceConfig
from penumo_assets.imaging.decode import DecodedImage, decode_image
from penumo_assets.imaging.enhance import enhance
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import jpeg2000
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.phantoms import draw_phantom
from penumo_assets_tests.imaging.samples import dicom_bytes, dicom_dataset, file_bytes, jpeg_bytes, phantom, png_bytes

WHOLE, REDUCED = DecodeConfig(), DecodeConfig(reduce_to=512)
HEIGHT, WIDTH = 1101, 1203
FILM, LUNGS = draw_phantom(4, height=HEIGHT, width=WIDTH)
GRAY = (FILM >> 4).astype(np.uint8)
TWELVE = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3600}
# How far tensors may be from those made of the whole image, in gray levels of 255: on average, and in all but a
# thousandth of the pixels. Most of it is noise of JPEG, which a close crop averages over fewer pixels of the film.
MEAN_TOLERANCE, TOLERANCE = 1.6, 12


def files() -> dict[str, bytes]:
    return {
        "png": png_bytes(GRAY),
        "16-bit png": cv2.imencode(".png", FILM << 4)[1].tobytes(),
        "jpeg": jpeg_bytes(GRAY),
        "dicom": dicom_bytes(FILM, **TWELVE),
        "dicom without a window": dicom_bytes(FILM, BitsStored=12),
        "signed jpeg 2000": dicom_bytes(FILM.astype(np.int16) - 2048, JPEG2000Lossless, BitsStored=12),
        "jpeg 2000": dicom_bytes(FILM, JPEG2000Lossless, **TWELVE),
        "inverted jpeg 2000": dicom_bytes(
            4095 - FILM, JPEG2000Lossless, **TWELVE, PhotometricInterpretation="MONOCHROME1"
        ),
        "jpeg in dicom": dicom_bytes(GRAY, JPEGBaseline8Bit),
    }


def tensor_of(image: DecodedImage) -> np.ndarray:
    box = Letterbox.fit(*image.size)
    mask = Letterbox.fit(HEIGHT, WIDTH).apply(LUNGS, nearest=True)
    return enhance(box.apply(image.pixels), mask, box.content, EnhanceConfig()).image


@pytest.mark.parametrize("name", files())
def test_a_reduced_image_becomes_nearly_the_same_tensor(name: str) -> None:
    data = files()[name]
    whole, reduced = decode_image(data, WHOLE), decode_image(data, REDUCED)
    assert whole.size == reduced.size == whole.pixels.shape == (HEIGHT, WIDTH)
    assert reduced.pixels.shape == (551, 602)
    assert reduced.pixels.dtype == whole.pixels.dtype
    assert "reduced:2" in reduced.notes
    assert not any(note.startswith("reduced") for note in whole.notes)
    difference = np.abs(tensor_of(whole).astype(int) - tensor_of(reduced))
    assert difference.mean() <= MEAN_TOLERANCE
    assert np.percentile(difference, 99.9) <= TOLERANCE


@pytest.mark.parametrize(("side", "factor"), [(1023, 1), (1024, 2), (2047, 2), (2048, 4), (4096, 8), (20_000, 8)])
def test_the_longer_side_keeps_what_is_asked_for(side: int, factor: int) -> None:
    image = decode_image(jpeg_bytes(np.resize(GRAY, (64, side))), REDUCED)
    assert image.pixels.shape == (64 // factor, -(-side // factor))
    assert image.size == (64, side)


def test_a_turned_jpeg_has_the_size_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode_image(jpeg_bytes(GRAY, exif=exif), REDUCED)
    assert image.size == (WIDTH, HEIGHT)
    assert image.pixels.shape == (602, 551)


def test_padding_is_not_blended_into_the_picture() -> None:
    film = FILM.copy()
    film[:, :101] = 4000
    data = dicom_bytes(film, JPEG2000Lossless, **TWELVE, PixelPaddingValue=4000)
    inside = decode_image(data, REDUCED).pixels[:, :50]
    assert inside.max() == 0


def huge_jpeg2000(**options: object) -> bytes:
    """A DICOM file of 36 million pixels, compressed by Pillow."""
    buffer = io.BytesIO()
    pixels = np.tile(phantom(600, 600, 8).astype(np.uint8), (10, 10))
    Image.fromarray(pixels).save(buffer, "JPEG2000", no_jp2=True, **options)
    dataset = dicom_dataset(phantom(64, 64, 8).astype(np.uint8), JPEG2000Lossless)
    dataset.Rows = dataset.Columns = 6000
    dataset.PixelData = encapsulate([buffer.getvalue()])
    return file_bytes(dataset)


def test_a_huge_jpeg_2000_picture_is_decoded_at_half_its_size_in_bounded_time() -> None:
    data = huge_jpeg2000()
    started = time.process_time()
    image = decode_image(data, WHOLE)
    assert time.process_time() - started < 5
    assert image.size == (6000, 6000)
    assert image.pixels.shape == (3000, 3000)
    assert "reduced:2" in image.notes


def test_a_huge_jpeg_2000_picture_without_smaller_versions_is_refused() -> None:
    with pytest.raises(ImageRejected) as rejection:
        decode_image(huge_jpeg2000(num_resolutions=1), WHOLE)
    assert rejection.value.code == "too_large"


def test_a_stream_without_smaller_versions_is_decoded_whole_and_then_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom_bytes(FILM, JPEG2000Lossless, **TWELVE)
    fast = decode_image(data, REDUCED).pixels.astype(int)
    monkeypatch.setattr(jpeg2000, "_reduced", lambda *_: None)
    slow = decode_image(data, REDUCED).pixels
    assert fast.shape == slow.shape
    assert 0 < np.abs(fast - slow).mean() < 257, "one gray level of 255; 0 would mean that it made no difference"
