import base64
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.inline import chart_captions, chart_data_uris, learning_curve
from penumo_assets_tests.metrics.synthetic import evaluation


def test_every_chart_is_a_whole_svg_with_its_own_colours():
    charts = chart_data_uris(build_report(evaluation(60)))
    assert list(charts) == ["roc", "precision_recall", "reliability", "decision_curve", "confusion_matrix"]
    for uri in charts.values():
        head, data = uri.split(",")
        assert head == "data:image/svg+xml;base64"
        root = ElementTree.fromstring(base64.b64decode(data))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "#0b5fa5" in root.find("{http://www.w3.org/2000/svg}style").text


def test_each_of_several_classes_has_its_charts_and_captions():
    report = build_report(evaluation(60, ["a", "b", "c"]))
    assert {"roc_a", "precision_recall_b", "reliability_c", "decision_curve_a"} <= set(chart_data_uris(report))
    assert set(chart_data_uris(report)) == set(chart_captions(report))


def test_what_cannot_be_drawn_is_left_out():
    base = evaluation(60)
    keep = base.index["test"]["target"].to_numpy() == 0
    index = {**base.index, "test": base.index["test"][keep].reset_index(drop=True)}
    report = build_report(replace(base, index=index, logits={**base.logits, "test": base.logits["test"][keep]}))
    assert "roc" not in chart_data_uris(report)


def test_a_caption_names_the_area_and_every_operating_point() -> None:
    report = build_report(evaluation(60))
    caption = chart_captions(report)["roc"]
    estimate = report.performance.test["roc_auc"]
    assert f"area {estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})" in caption
    assert len(report.operating_points) > 1
    for point in report.operating_points:
        assert f"{point.name}: sensitivity" in caption


def test_the_learning_curve_draws_what_was_measured_in_each_epoch() -> None:
    history = [
        {"epoch": 1, "train_loss": 0.9, "validation_loss": 1.4, "validation_roc_auc": 0.5},
        {"epoch": 2, "train_loss": 0.5, "validation_loss": 0.7, "validation_roc_auc": None},
        {"epoch": 3, "train_loss": 0.2, "validation_loss": 0.6, "validation_roc_auc": 0.9},
    ]
    uri = learning_curve(history)
    assert uri is not None
    svg = base64.b64decode(uri.partition(",")[2]).decode()
    lines = dict(re.findall(r'<polyline class="line (series-\d)" points="([^"]+)"', svg))
    assert {name: len(points.split()) for name, points in lines.items()} == {
        "series-1": 3,
        "series-2": 3,
        "series-3": 2,
    }
    heights = [float(point.split(",")[1]) for point in lines["series-1"].split()]
    assert heights == sorted(heights)  # downwards on the page, as the loss falls
    assert learning_curve(history[:1]) is None
