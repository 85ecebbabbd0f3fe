"""Grad-CAM held to the boxes that readers drew, from the items of a packed set to the report and its page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from penumo_assets.jobs.evaluate.explain import explain
from penumo_assets.jobs.shards import Split
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.html import render_html
from penumo_assets.models.inputs import default_normalisation
from penumo_assets_tests.jobs.training_samples import packed_set, run_pack, write_inputs, write_items
from penumo_assets_tests.metrics.synthetic import evaluation

METADATA = {"input_channels": 4, "image_size": 56, "normalisation": default_normalisation(4)}
WHOLE_FILM = (25, 0, 486, 512)  # of the letterbox of a film of 1000 x 900


class Bright(nn.Module):
    """Its class 1 is as likely as the picture is bright, so its map lies on what is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Conv2d(4, 1, 1, bias=False)
        self.layer4.weight.data = torch.tensor([1.0, 0, 0, 0]).view(1, 4, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.layer4(images).mean(dim=(2, 3))
        return torch.cat([-pooled, pooled], dim=1)


def patch_of(seed: int) -> tuple[int, int]:
    """Row and column of the bright patch of `training_samples.tensor`, 60 pixels wide and high."""
    rng = np.random.default_rng(seed)
    rng.integers(40, 90, (28, 28), dtype=np.uint8)
    row, column = rng.integers(40, 140, 2)
    return int(row), int(column)


def boxed_set(folder: Path, monkeypatch: pytest.MonkeyPatch, mirrored: bool) -> Split:
    """Test images with a box round their bright patch; ``mirrored``: on the picture's other side."""
    items = write_inputs(folder, test_fraction=0.5)
    for number, item in enumerate(items):
        row, column = patch_of(number)
        left = 224 - 60 - column if mirrored else column
        item |= {"source_width": 1000, "crop_box": WHOLE_FILM}
        if item["label"] == "pneumonia":
            item["boxes"] = [(left / 224 * 1000, row / 224 * 900, 60 / 224 * 1000, 60 / 224 * 900)]
    write_items(folder, items)
    run_pack(folder, monkeypatch)
    return Split(folder / "processing/output/dataset/test")


def test_a_map_on_the_finding_lies_in_its_box_and_in_no_other_place(tmp_path, monkeypatch) -> None:
    split = boxed_set(tmp_path / "there", monkeypatch, mirrored=False)
    found = explain(Bright().eval(), METADATA, split, 1, 4)
    assert found is not None
    assert len(found.patients) > 3
    assert found.boxes["energy"].min() > 0.95
    assert set(found.boxes["pointing"]) == {1}
    assert found.boxes["even"] == pytest.approx((60 / 224) ** 2, rel=0.05)
    other = explain(Bright().eval(), METADATA, boxed_set(tmp_path / "mirrored", monkeypatch, mirrored=True), 1, 4)
    assert other is not None
    beside = [abs(224 - 60 - 2 * patch_of(int(name[1:]))[1]) > 64 for name in other.patients]
    assert any(beside)
    assert set(other.boxes["pointing"][beside]) == {0}


def test_the_report_says_how_often_the_map_lies_in_a_box(tmp_path, monkeypatch) -> None:
    split = boxed_set(tmp_path, monkeypatch, mirrored=False)
    found = explain(Bright().eval(), METADATA, split, 1, 4)
    report = build_report(replace(evaluation(40), explained=found))
    boxes = report.explanation.boxes
    assert boxes.images == len(found.patients)
    assert (boxes.pointing.value, boxes.pointing.low < 1) == (1, True)
    assert boxes.energy.value > 0.95
    page = render_html(report)
    assert f"{boxes.images} of these images have boxes that readers drew around the finding" in page
    assert "No boxes in" not in page


def test_boxes_are_part_of_what_a_training_set_is(tmp_path, monkeypatch) -> None:
    """A training set with the same films and other boxes has another digest; without boxes it has the one it had."""
    write_inputs(tmp_path)
    plain = run_pack(tmp_path, monkeypatch)["digest"]
    boxed_set(tmp_path, monkeypatch, mirrored=False)
    assert run_pack(tmp_path, monkeypatch)["digest"] != plain


def test_a_set_of_an_earlier_version_has_no_boxes(tmp_path, monkeypatch) -> None:
    split = Split(packed_set(tmp_path, monkeypatch) / "test")
    split.index = split.index.drop(columns="boxes")
    found = explain(Bright().eval(), METADATA, split, 1, 4)
    assert found is not None
    assert np.isnan(found.boxes["energy"]).all()
