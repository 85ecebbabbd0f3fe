import copy
import json

import pytest
from jsonschema import Draft202012Validator

from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.schema import InvalidReport, schema, validate_report
from penumo_assets_tests.metrics.synthetic import evaluation


@pytest.fixture(scope="module")
def report():
    return json.loads(json.dumps(build_report(evaluation(40))))


def test_the_schema_itself_is_a_valid_schema():
    Draft202012Validator.check_schema(schema())


def test_every_key_of_a_report_is_described_and_every_described_key_is_there(report):
    assert set(schema()["properties"]) == set(report) == set(schema()["required"])


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("performance", "test", "roc_auc", "value"), "0.9", "performance/test/roc_auc/value"),
        (("performance", "test", "roc_auc"), None, "performance/test/roc_auc"),
        (("decision_rule", "threshold"), 1.2, "decision_rule/threshold"),
        (("schema",), "penumo/evaluation-report/2", "schema"),
        (("phantoms",), "yes", "phantoms"),
        (("data", "splits", "test", "images"), -1, "data/splits/test/images"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(report, path, value, where):
    broken = copy.deepcopy(report)
    inner = broken
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(InvalidReport, match=where):
        validate_report(broken)


def test_an_undefined_metric_without_a_reason_is_refused(report):
    broken = copy.deepcopy(report)
    broken["performance"]["test"]["f1"] |= {"value": None, "low": None, "high": None, "reason": None}
    with pytest.raises(InvalidReport, match="performance/test/f1/reason"):
        validate_report(broken)


def test_missing_and_unknown_keys_are_refused(report):
    broken = {key: value for key, value in report.items() if key != "calibration"} | {"extra": 1}
    with pytest.raises(InvalidReport, match=r"(?s)extra.*calibration|calibration.*extra"):
        validate_report(broken)
