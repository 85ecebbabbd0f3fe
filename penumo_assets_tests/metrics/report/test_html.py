import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.html import SECTIONS, Picture, render_html
from penumo_assets_tests.metrics.synthetic import evaluation

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>\'"&amp;{{ 7*7 }}'
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, ids, links and text; complains about tags that are closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def report():
    flow = {"alpha": {"accepted": 40, "rejected": {"truncated": 2}}, "beta": {"accepted": 41, "rejected": {}}}
    return build_report(evaluation(60, context={"phantoms": True, "flow": flow, "gates": {"max_ece": 0.5}}))


@pytest.fixture(scope="module")
def page(report):
    return Page(render_html(report))


def words(page: Page) -> str:
    return re.sub(r"\s+", " ", " ".join(page.text))


def test_the_page_is_one_file_without_scripts_or_anything_from_elsewhere(report):
    text = render_html(report, gallery=[Picture("data:image/jpeg;base64,AAAA", None)])
    page = Page(text)
    assert not page.named("script")
    assert not page.named("link")
    assert not page.named("iframe")
    assert "url(http" not in text
    assert "@import" not in text
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not re.match(r"(https?:)?//", attributes.get("src", "") or "")
        assert not re.match(r"(https?:)?//", attributes.get("href", "") or "")
    assert [image["src"] for image in page.named("img")] == ["data:image/jpeg;base64,AAAA"]


def test_ids_are_unique_and_every_link_has_its_target(page):
    assert len(page.ids) == len(set(page.ids))
    for link in page.named("a"):
        assert link["href"].startswith("#")
        assert link["href"][1:] in page.ids, link


def test_every_section_stands_in_the_order_of_the_contents(page):
    sections = [attributes["id"] for attributes in page.named("section")]
    assert sections == [name for name in SECTIONS if name != "comparison"]


def test_the_page_says_that_it_is_no_medical_device_and_about_phantoms(page):
    assert "Not a medical device." in words(page)
    assert "These are phantoms, not patients." in words(page)


def test_a_report_about_patients_does_not_speak_of_phantoms():
    assert "phantoms" not in words(Page(render_html(build_report(evaluation(40)))))


def test_the_headline_numbers_and_their_intervals_are_on_the_page(report, page):
    for name in ("roc_auc", "recall", "specificity"):
        estimate = report.performance.test[name]
        assert f"{estimate.value:.3f}" in words(page)
        assert f"{estimate.low:.3f} to {estimate.high:.3f}" in words(page)


def test_every_string_from_outside_is_neutralised(report):
    base = evaluation(60, context={
        "flow": {HOSTILE: {"accepted": 1, "rejected": {HOSTILE: 2}}},
        "aims": HOSTILE, "funding": HOSTILE, "code_version": HOSTILE, "config_digest": HOSTILE,
        "dice": [{"cohort": HOSTILE, "patient_id": HOSTILE, "image_id": HOSTILE, "dice": 0.9, "iou": 0.8}] * 2,
    })  # fmt: skip
    for frame in base.index.values():
        frame["cohort"] = np.where(np.arange(60) % 2, HOSTILE, "alpha")
        frame["sex"], frame["view"] = HOSTILE, HOSTILE
        frame["image_id"] = [f"{HOSTILE}{i}" for i in range(60)]
    hostile = replace(
        base,
        classes=[HOSTILE, "pneumonia"],
        model={**base.model, "architecture": HOSTILE, "hyperparameters": {HOSTILE: HOSTILE}},
        dataset={"digest": HOSTILE, "salt": HOSTILE},
    )
    text = render_html(build_report(hostile), hostile.context)
    page = Page(text)
    assert not page.named("script")
    assert not page.named("img")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert HOSTILE in " ".join(page.text)
    assert "49" not in re.findall(r"&amp;amp;(\d+)", text)


def test_charts_are_well_formed_described_and_have_a_table_beside_them(report):
    text = render_html(report)
    charts = re.findall(r'<svg class="chart".*?</svg>', text, flags=re.DOTALL)
    assert len(charts) == 5
    for chart in charts:
        root = ElementTree.fromstring(chart)
        space = "{http://www.w3.org/2000/svg}"
        title, description = root.find(f"{space}title"), root.find(f"{space}desc")
        assert root.get("role") == "img"
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert title.text
        assert len(description.text) > 40
    assert text.count("as a table</summary>") == 5


def test_every_picture_has_a_text_and_every_table_its_headers(report):
    gallery = [Picture("data:image/jpeg;base64,AAAA", "data:image/jpeg;base64,BBBB")] * len(report.failures)
    page = Page(render_html(report, gallery=gallery))
    assert len(page.named("img")) == 2 * len(report.failures) > 0
    assert all(image["alt"] for image in page.named("img"))
    assert all(header.get("scope") in ("row", "col") for header in page.named("th"))
    assert page.named("html")[0]["lang"] == "en"


def test_an_undefined_metric_is_shown_with_its_reason():
    base = evaluation(60)
    keep = (base.index["test"]["target"] == 0).to_numpy()
    index = {**base.index, "test": base.index["test"][keep].reset_index(drop=True)}
    report = build_report(replace(base, index=index, logits={**base.logits, "test": base.logits["test"][keep]}))
    text = words(Page(render_html(report)))
    assert "undefined: no image of class pneumonia" in text
    assert "No curves: the images hold one class only." in text


def test_each_of_several_classes_has_its_charts_points_and_shortcuts():
    page = Page(render_html(build_report(evaluation(90, ["covid", "normal", "pneumonia"]))))
    assert "Mean recall" in words(page)
    assert "called covid" in words(page)
    assert len(page.ids) == len(set(page.ids))
    for name in ("covid", "normal", "pneumonia"):
        assert words(page).count(f"{name} against the rest") == 3  # curves, operating points, calibration
        for figure in ("ROC curve of", "Precision and recall of", "Reliability of the probability of"):
            assert f"{figure} {name}" in words(page)


def test_every_gate_stands_on_the_page_with_what_it_says(report, page):
    assert "not_asked" in {gate.status for gate in report.gates}
    for gate in report.gates:
        assert f"{gate.status.replace('_', ' ')}" in words(page)
        assert gate.reason in words(page)
    (leakage,) = [gate for gate in report.gates if gate.gate == "require_no_leakage"]
    assert f"No leakage between splits passed {leakage.value:.0f} 0 " in words(page)


def test_an_error_is_told_by_the_probability_that_the_threshold_cuts(report, page):
    threshold = report.decision_rule.threshold
    missed = next(row for row in report.failures if row.called == "normal")
    expected = f"probability of pneumonia {1 - missed.confidence:.3f}, threshold {threshold:.3f}"
    assert expected in words(page)
    assert 1 - missed.confidence < threshold


def test_the_flow_shows_every_reason_for_exclusion(page):
    assert "excluded, Truncated: 2" in words(page)
    assert "arrived: 42" in words(page)


def test_the_flow_accounts_for_every_image_that_arrived():
    flow = {"a": {"landed": 50, "accepted": 40, "rejected": {"truncated": 7}, "unlabelled": 5}}
    text = words(Page(render_html(build_report(evaluation(40, context={"flow": flow})))))
    for line in ("arrived: 50", "Truncated: 7", "not processed: 3", "usable: 40", "so not evaluated: 5"):
        assert line in text


def test_the_checklist_ends_the_page_with_all_items(report, page):
    rows = [row for row in report.checklist if row.section is None]
    assert rows
    for row in rows:
        assert f"not answered: {row.reason}" in words(page)


def test_the_page_adapts_to_dark_screens_and_print(report):
    text = render_html(report)
    assert "@media (prefers-color-scheme: dark)" in text
    assert "@media print" in text
    assert 'name="viewport"' in text


def test_a_comparison_with_a_reference_model_has_its_own_section():
    base = evaluation(60)
    frame = base.index["test"]
    weak = np.random.default_rng(5).random(60)
    reference = frame[["cohort", "image_id"]].assign(split="test", probability_pneumonia=weak)
    report = build_report(replace(base, reference=reference))
    page = Page(render_html(report))
    assert "comparison" in page.ids
    assert f"{report.comparison.result.second:.3f} (reference)" in words(page)
