import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import DecodedImage, Tags, decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import png
from penumo_assets_tests.imaging.samples import SECRET, all_samples, dicom_bytes, phantom

CONFIG = DecodeConfig()
SAMPLES = all_samples()


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_sample_is_decoded(name: str) -> None:
    image = decode_image(SAMPLES[name], CONFIG)
    kind = {"png": "png", "jpg": "jpeg", "dcm": "dicom"}[name.rsplit(".")[-1]]
    assert image.format == kind
    assert image.pixels.ndim == 2
    assert image.pixels.dtype in (np.uint8, np.uint16)
    assert image.pixels.flags.c_contiguous
    assert image.pixels.min() < image.pixels.max()


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_file_cut_off_anywhere_is_refused(name: str) -> None:
    data = SAMPLES[name]
    # The last bytes of a DICOM file may be an empty delimiter and padding, behind all of the picture.
    whole = len(data) - (12 if name.endswith(".dcm") else 0)
    for length in range(0, whole, max(1, whole // 40)):
        with pytest.raises(ImageRejected) as error:
            decode_image(data[:length], CONFIG)
        assert error.value.code in ("empty", "truncated", "not_an_image", "no_pixel_data", "corrupt")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"\0", "not_an_image"),
        (b"this is a text named image.dcm" * 20, "not_an_image"),
        (b"<html></html>", "not_an_image"),
        (bytes(4096), "not_an_image"),
        (b"GIF89a" + bytes(100), "unsupported_format"),
        (b"II*\0" + bytes(100), "unsupported_format"),
        (b"%PDF-1.7", "unsupported_format"),
        (b"PK\x03\x04" + bytes(100), "unsupported_format"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff", "truncated"),
        (bytes(128) + b"DICM", "no_pixel_data"),
    ],
)
def test_what_is_no_image_is_refused_with_what_it_is(data: bytes, code: str) -> None:
    with pytest.raises(ImageRejected) as error:
        decode_image(data, CONFIG)
    assert error.value.code == code
    assert error.value.reason.endswith(".")


def test_an_unforeseen_failure_is_a_refusal_that_quotes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError(SECRET)

    monkeypatch.setattr(png, "decode", fail)
    with pytest.raises(ImageRejected) as error:
        decode_image(SAMPLES["gray.png"], CONFIG)
    assert error.value.code == "undecodable"
    assert SECRET not in str(error.value)
    assert error.value.__suppress_context__


def test_an_interrupt_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(png, "decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode_image(SAMPLES["gray.png"], CONFIG)


def test_the_patient_id_is_not_shown_when_an_image_is_printed() -> None:
    image = decode_image(dicom_bytes(phantom()), CONFIG)
    assert image.patient_id == "HOSP-0042"
    assert "HOSP-0042" not in f"{image} {image!r}"


def test_decoded_values_are_plain_and_frozen() -> None:
    image = DecodedImage(np.zeros((2, 2), np.uint8), 8, "png", Tags(), (2, 2), None, ())
    with pytest.raises(AttributeError):
        image.bits = 16  # type: ignore[misc]


def test_nothing_of_a_header_reaches_logs_warnings_or_output(tmp_path: Path) -> None:
    """A process with all logs and warnings on decodes headers that are full of malformed values."""
    hostile = {
        "clean.dcm": dicom_bytes(phantom(), BitsStored=12),
        "id.dcm": _patched(b"HOSP-0042", SECRET[:9].encode()),
        "charset.dcm": _patched(b"ISO_IR 100", b"DOE^JANE_X"),
        "age.dcm": _patched(b"062Y", b"DOE^"),
        "view.dcm": _patched(b"CHEST ", b"DOE^JA"),
        "modality.dcm": _patched(b"DX", b"DO", count=1, near=b"\x08\x00\x60\x00"),
        "cut.dcm": dicom_bytes(phantom())[:-500],
    }
    for name, data in hostile.items():
        (tmp_path / name).write_bytes(data)
    program = (
        "import logging, sys, warnings\n"
        "logging.basicConfig(level=logging.DEBUG); warnings.simplefilter('default')\n"
        "from pathlib import Path\n"
        "from penumo_assets.configs.prepare import DecodeConfig\n"
        "from penumo_assets.imaging.decode import decode_image\n"
        "from penumo_assets.imaging.errors import ImageRejected\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: print(path.name, decode_image(path.read_bytes(), DecodeConfig()))\n"
        "    except ImageRejected as error: print(path.name, error.code, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == len(hostile)
    for piece in ("DOE", "JANE", "SECRET", "HOSP", "19500101"):
        assert piece not in done.stdout + done.stderr


def _patched(old: bytes, new: bytes, count: int = -1, near: bytes = b"") -> bytes:
    data = dicom_bytes(phantom(), BitsStored=12, SpecificCharacterSet="ISO_IR 100")
    start = data.index(near) if near else 0
    assert len(old) == len(new)
    assert old in data[start:]
    return data[:start] + data[start:].replace(old, new, count)


def test_pydicoms_loggers_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("pydicom.filereader").warning(SECRET)
        logging.getLogger("pydicom.pixels.decoders.base").error(SECRET)
    assert SECRET not in caplog.text
