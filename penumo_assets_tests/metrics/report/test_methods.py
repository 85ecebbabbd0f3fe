"""What the page says of preparation, exclusions and split is what was set and counted; the checklist follows it."""

from typing import Any

import pytest

from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.html import render_html
from penumo_assets.metrics.report.methods import preparation
from penumo_assets_tests.metrics.report.test_html import Page, words
from penumo_assets_tests.metrics.synthetic import evaluation

OFF = {"enabled": False}


def page_of(n: int = 40, split: str | None = None, **context: Any) -> tuple[dict, str]:
    """The checklist's answers by item, and the words of the page."""
    base = evaluation(n, context=context)
    base.dataset["split"] = split
    report = build_report(base)
    answers = {row.item or row.topic: row.section for row in report.checklist}
    return answers, words(Page(render_html(report, base.context)))


def test_preparation_is_told_as_it_was_set() -> None:
    ((cohorts, steps),) = preparation({"alpha": {}, "beta": PrepareConfig.defaults().model_dump(mode="json")})
    assert cohorts == "alpha, beta"
    for step in (
        "patient ids of DICOM films",
        "cropped to the lungs",
        "squashed",
        "CLAHE (limit 2, 8 tiles",
        "0.5 to 99.5",
    ):
        assert step in steps
    changed = {
        "decode": {"deidentify": "never"},
        "segment": {"on_bad_mask": "whole_image"},
        "enhance": {"crop_to_lungs": False, "apply_mask": True, "clahe": OFF, "min_max": OFF, "gaussian_blur": OFF},
    }
    ((_, steps),) = preparation({"gamma": changed})
    assert steps == (
        "patient ids as they landed; lungs outlined by lung_unet, where an implausible outline is replaced by the "
        "whole image; not cropped, squashed to a square; blanked outside the lungs."
    )
    ((_, steps),) = preparation({"old": {"enhance": {"no_such_key": 1}}})
    assert "earlier version" in steps


def test_items_nine_and_eleven_are_answered_where_the_page_shows_the_preparation() -> None:
    known, page = page_of(prepared_with={"alpha": {}, "beta": {"enhance": {"apply_mask": True}}})
    assert (known[9], known[11]) == ("data", "data")
    assert "Preparation of alpha" in page
    assert "blanked outside the lungs" in page.split("Preparation of beta")[1]
    unknown, page = page_of(config_digest="0" * 16)
    assert (unknown[9], unknown[11]) == (None, None)
    assert "Cropped to the lungs" not in page


def test_exclusions_are_told_by_class_and_masks_by_what_became_of_them() -> None:
    classes = {
        "normal": {"landed": 40, "rejected": 1, "accepted": 39},
        "pneumonia": {"landed": 10, "rejected": 3, "accepted": 7},
    }
    flow = {
        "landed": 50, "accepted": 46, "rejected": {"implausible_mask": 4}, "without_patient": 2,
        "whole_image_masks": 5, "unpaired_masks": 6, "missing_files": 7, "classes": classes,
    }  # fmt: skip
    answers, page = page_of(flow={"alpha": flow})
    assert (answers[8], answers[35], answers["Practices of building the datasets"]) == ("flow", "flow", "flow")
    for line in (
        "normal: 1 of 40 excluded (2.5 %)", "pneumonia: 3 of 10 excluded (30.0 %)", "excluded, Implausible mask: 4",
        "without a patient id, so not used: 2", "whole image was used: 5", "without a film of their own, not used: 6",
        "whose file did not land: 7",
    ):  # fmt: skip
        assert line in page


@pytest.mark.parametrize(
    ("split", "said"),
    [("hash", "adding data moves nobody"), ("stratified", "adding data can move patients"),
     ("column", "own tables declare the split"), (None, "was not recorded")],
)  # fmt: skip
def test_the_page_says_what_decided_the_split(split: str | None, said: str) -> None:
    assert said in page_of(split=split)[1]


def test_figures_that_are_undefined_answer_no_item() -> None:
    answers, _ = page_of(n=0)
    assert [answers[item] for item in (30, 37, 38, 39)] == [None] * 4
    answers, _ = page_of()
    assert [answers[item] for item in (37, 38, 39)] == ["performance", "performance", "failures"]
