"""Pictures on asset pages say what they show, of which film, with which label and answer."""

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from penumo_assets.assets.pages import contact_sheet, overlay_lines, stage_preview
from penumo_assets.resources.storage.file_store import FileStore


def picture(markdown: str) -> np.ndarray:
    (data,) = re.findall(r"base64,([^)]+)\)", markdown)
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def overlay_in(store: FileStore, key: str) -> str:
    store.write(key, cv2.imencode(".png", np.full((224, 448, 3), 90, np.uint8))[1].tobytes())
    return key


def test_overlays_stand_in_rows_of_two_under_their_captions(store: FileStore) -> None:
    one, two, three = (overlay_in(store, f"overlays/{name}.png") for name in "abc")
    alone = picture(contact_sheet(store, {one: ("a", "label none")}).value)
    sheet = contact_sheet(store, {one: ("a", "x"), two: ("b", "x"), three: ("c", "ü")}).value
    assert picture(sheet).shape[0] == 2 * alone.shape[0]
    assert "Grad-CAM" in sheet.splitlines()[-1]
    strip = alone[:34]
    assert strip.max() > 150  # letters
    assert strip.min() < 60


def test_another_caption_is_another_picture(store: FileStore) -> None:
    key = overlay_in(store, "overlays/a.png")
    sheets = [contact_sheet(store, {key: ("a", f"called {name}")}).value for name in ("normal", "pneumonia")]
    assert sheets[0] != sheets[1]


def test_an_overlays_caption_holds_film_label_answer_and_probability() -> None:
    row = {"image_id": "0123", "label": "", "decision": "pneumonia", "probability_pneumonia": "0.8765"}
    assert overlay_lines(row, "pneumonia") == ("0123", "label none, called pneumonia (0.88)")


def test_a_preview_without_images_says_so(store: FileStore) -> None:
    assert stage_preview(store, [], "raw").value == "no images"
