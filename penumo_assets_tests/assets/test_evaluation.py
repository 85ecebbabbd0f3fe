import pytest
from dagster import Failure

from penumo_assets.assets.evaluation import STUDY, statements
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets_tests.metrics.synthetic import evaluation


def test_every_statement_answers_an_item_or_a_line_of_the_report() -> None:
    """The keys are the report's own: with all of them stated, no item waits for the study's owner."""
    report = build_report(evaluation(40, context=dict.fromkeys(STUDY, "stated")))
    assert not [row.topic for row in report.checklist if row.reason and "only its owner" in row.reason]


def test_a_misspelt_statement_is_refused_by_name() -> None:
    assert statements({"aims": "To find pneumonia."}) == {"aims": "To find pneumonia."}
    with pytest.raises(Failure, match="unknown statements aim; known are acquisition, aims"):
        statements({"aim": "To find pneumonia."})
