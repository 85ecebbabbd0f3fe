import base64
import xml.etree.ElementTree as ElementTree

from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.inline import chart_data_uris
from penumo_assets_tests.metrics.synthetic import evaluation


def test_every_chart_is_a_whole_svg_with_its_own_colours():
    charts = chart_data_uris(build_report(evaluation(60)))
    assert list(charts) == ["roc", "precision_recall", "reliability", "decision_curve"]
    for uri in charts.values():
        head, data = uri.split(",")
        assert head == "data:image/svg+xml;base64"
        root = ElementTree.fromstring(base64.b64decode(data))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "#0b5fa5" in root.find("{http://www.w3.org/2000/svg}style").text


def test_what_cannot_be_drawn_is_left_out():
    assert "roc" not in chart_data_uris(build_report(evaluation(60, ["a", "b", "c"])))
