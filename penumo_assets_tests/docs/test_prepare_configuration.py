import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from penumo_assets.imaging.decode import decode_png

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location(
        "prepare_configuration", DOCS.parent / "tools" / "prepare_configuration.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_page_is_what_the_models_say(generator) -> None:
    written = (DOCS / "prepare_configuration.md").read_text(encoding="utf-8")
    assert written == generator.page(), "run: python tools/prepare_configuration.py"


def test_every_example_is_a_key_and_has_its_picture(generator) -> None:
    keys = {key for key, _, _ in generator.leaves(generator.PrepareConfig())}
    assert set(generator.EXAMPLES) <= keys
    assert {path.stem for path in generator.PICTURES.glob("*.png")} == set(generator.EXAMPLES)


def test_a_picture_shows_what_the_code_does_today(generator) -> None:
    for key in ("enhance.apply_mask", "decode.window_high_percentile"):
        stored = decode_png((generator.PICTURES / f"{key}.png").read_bytes())
        today = generator.picture(key)
        assert np.abs(stored.astype(int) - today[..., 0]).max() <= 2, "run: python tools/prepare_configuration.py"


def test_both_halves_of_every_picture_differ(generator) -> None:
    for key in generator.EXAMPLES:
        stored = decode_png((generator.PICTURES / f"{key}.png").read_bytes()).astype(int)
        side = generator.SIDE
        assert np.abs(stored[:, :side] - stored[:, -side:]).max() > 5, key
