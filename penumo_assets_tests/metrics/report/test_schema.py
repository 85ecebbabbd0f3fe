import json
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator

from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.content import SCHEMA_NAME, InvalidReport, read_report, schema_text
from penumo_assets_tests.metrics.synthetic import evaluation


@pytest.fixture
def report():
    return build_report(evaluation(40)).as_json()


def read(report) -> None:
    read_report(json.dumps(report))


def test_the_published_schema_is_the_one_that_the_records_write():
    published = files("penumo_assets.metrics.report").joinpath(SCHEMA_NAME).read_text(encoding="utf-8")
    assert published == schema_text(), "run: python tools/report_schema.py"


def test_the_schema_itself_is_a_valid_schema():
    Draft202012Validator.check_schema(json.loads(schema_text()))


def test_every_key_of_a_report_is_described_and_every_described_key_is_there(report):
    schema = json.loads(schema_text())
    assert set(schema["properties"]) == set(report) == set(schema["required"])


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("performance", "test", "roc_auc", "value"), "0.9", "performance/test/roc_auc/value"),
        (("performance", "test", "roc_auc"), None, "performance/test/roc_auc"),
        (("decision_rule", "threshold"), 1.2, "decision_rule/threshold"),
        (("schema",), "penumo/evaluation-report/0", "schema"),
        (("phantoms",), "yes", "phantoms"),
        (("data", "splits", "test", "images"), -1, "data/splits/test/images"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_by_the_records_and_by_the_schema(report, path, value, where):
    inner = report
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(InvalidReport, match=where):
        read(report)
    errors = Draft202012Validator(json.loads(schema_text())).iter_errors(report)
    assert where in ["/".join(map(str, error.absolute_path)) for error in errors]


def test_an_undefined_metric_without_a_reason_or_with_an_interval_is_refused(report):
    report["performance"]["test"]["f1"] |= {"value": None, "low": None, "high": None, "reason": None}
    report["performance"]["test"]["recall"] |= {"value": None, "low": 0.2, "high": None, "reason": "nobody"}
    with pytest.raises(InvalidReport, match=r"(?s)performance/test/.*/reason.*performance/test/.*/reason"):
        read(report)


def test_missing_and_unknown_keys_are_refused(report):
    report.pop("calibration")
    with pytest.raises(InvalidReport, match=r"(?s)extra.*calibration|calibration.*extra"):
        read(report | {"extra": 1})
