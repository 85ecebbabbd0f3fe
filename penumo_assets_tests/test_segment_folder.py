import csv
from pathlib import Path

import cv2
import numpy as np
from click.testing import CliRunner

from penumo_assets.cli.main import main
from penumo_assets.phantoms import draw_phantom


def test_every_film_of_a_folder_gets_a_mask_in_its_own_pixels(tmp_path: Path) -> None:
    films = tmp_path / "films"
    (films / "ward").mkdir(parents=True)
    truths = {}
    for name, shape in {"tall.png": (620, 540), "ward/wide.png": (480, 600)}.items():
        image, truths[name] = draw_phantom(3, height=shape[0], width=shape[1])
        cv2.imwrite(str(films / name), (image >> 4).astype(np.uint8))
    (films / "black.png").write_bytes(cv2.imencode(".png", np.zeros((300, 300), np.uint8))[1].tobytes())
    (films / "text.dcm").write_text("not a film")
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["segment", str(films), "--out", str(out)])
    assert result.exit_code == 0, result.output
    with (out / "segment.csv").open(newline="") as file:
        lines = {line["file"]: line for line in csv.DictReader(file)}
    statuses = {name: line["status"] for name, line in lines.items()}
    assert statuses == {
        "black.png": "constant_image",
        "tall.png": "ok",
        "text.dcm": "not_an_image",
        "ward/wide.png": "ok",
    }
    for name, truth in truths.items():
        mask = cv2.imread(str(out / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == truth.shape
        assert set(np.unique(mask)) == {0, 255}
        assert 2 * np.logical_and(mask, truth).sum() / (mask.astype(bool).sum() + truth.astype(bool).sum()) > 0.8
        assert cv2.imread(str(out / "overlays" / f"{name}.jpg")).shape[:2] == truth.shape
        assert 0.02 < float(lines[name]["area_left"]) < 0.4
        assert float(lines[name]["seconds"]) > 0
    assert not (out / "masks" / "black.png.png").exists()
