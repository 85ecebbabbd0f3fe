"""Images that claim 100,000 x 100,000 pixels, or hide gigabytes in a megabyte: refused soon and in little memory."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.png import png_samples
from penumo_assets.imaging.truth import read_mask
from penumo_assets_tests.imaging.samples import png_bytes
from penumo_assets_tests.trust.hostile_images import ROWS, adam7_rows, bombs, giants, png
from penumo_assets_tests.trust.hostile_measure import measure

pytestmark = pytest.mark.trust

# A film of the largest permitted size takes 256 MiB decoded, and two or three times that on its way: 768 MiB.
_PEAK_MIB = 320
_SECONDS = 3.0


@pytest.mark.parametrize("kind", [giants, bombs])
def test_a_giant_or_a_bomb_is_refused_soon_and_in_little_memory(kind, tmp_path: Path) -> None:
    files = kind()
    found = measure(tmp_path, {name: data for name, (data, _) in files.items()})
    assert {name: item["code"] for name, item in found.items()} == {name: code for name, (_, code) in files.items()}
    assert sum(item["mebibytes"] for item in found.values()) < _PEAK_MIB, found
    assert max(item["seconds"] for item in found.values()) < _SECONDS, found


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 3), (8, 8), (33, 64), (56, 64)])
@pytest.mark.parametrize("depth", [1, 8, 16])
def test_an_honest_interlaced_picture_is_no_bomb(width: int, height: int, depth: int) -> None:
    data = png((width, height), zlib.compress(adam7_rows(width, height, depth)), depth=depth, interlaced=1)
    assert not png_samples(data, DecodeConfig(min_side=1)).any()


def test_a_drawn_mask_is_read_with_the_same_care() -> None:
    drawn = np.zeros((16, 16), np.uint8)
    drawn[4:8, 4:8] = 255
    assert np.array_equal(read_mask(png_bytes(drawn)), drawn > 0)
    for data in (png((100_000, 100_000), ROWS), b"II*\0" + bytes(100), b"", png_bytes(0 * drawn)):
        with pytest.raises(ImageRejected, match=r"limit is 64 million|TIFF|no bytes|no lung"):
            read_mask(data)
