"""A report on the MLflow run that trained its model."""

import math
from pathlib import Path

import pytest
from mlflow import MlflowClient

from penumo_assets.metrics.report.assemble import build_report, headline
from penumo_assets.metrics.report.content import Report, read_report
from penumo_assets.resources.evaluation_log import NOTE_TAG, REPORT_TAG, Evaluated, record_evaluation
from penumo_assets.resources.tracking import Tracking
from penumo_assets_tests.metrics.synthetic import evaluation

MISSION = (
    *("accuracy", "precision", "recall", "f1", "specificity", "balanced_accuracy", "youden_index", "macro_f1"),
    *("micro_f1", "roc_auc", "pr_auc"),
)
DICE = [{"cohort": "ward", "patient_id": f"p{n}", "image_id": f"i{n}", "dice": 0.9, "iou": 0.8} for n in range(12)]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("mlflow")
    uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
    pages = {"ui_url": "http://mlflow.example", "dagster_ui": "http://dagster.example"}
    return Tracking(tracking_uri=uri, artifact_root=artifacts, **pages)


@pytest.fixture
def model(tracking: Tracking) -> tuple[str, str]:
    """Run and ``models:/`` URI of a training."""
    client: MlflowClient = tracking.client()
    run = client.create_run(tracking.experiment_id())
    logged = client.create_logged_model(tracking.experiment_id(), name="model", source_run_id=run.info.run_id)
    client.finalize_logged_model(logged.model_id, "READY")
    return run.info.run_id, f"models:/{logged.model_id}"


def evaluated(model: tuple[str, str], name: str, report: Report) -> Evaluated:
    return Evaluated(*model, name, report, f"<html>{name}</html>", headline(report))


def artifacts(tracking: Tracking, run_id: str, folder: str) -> set[str]:
    return {Path(info.path).name for info in tracking.client().list_artifacts(run_id, folder)}


def test_every_metric_stands_on_the_run_with_its_interval(tracking: Tracking, model: tuple[str, str]) -> None:
    report = build_report(evaluation(context={"dice": DICE}))
    assert record_evaluation(tracking, evaluated(model, "evaluate-1", report)) is None
    metrics = tracking.client().get_run(model[0]).data.metrics
    for name in MISSION:
        estimate = report.performance.test[name]
        found = [metrics[f"test_{name}{end}"] for end in ("", "_low", "_high")]
        assert found == [estimate.value, estimate.low, estimate.high], name
        assert found[1] <= found[0] <= found[2], name
    assert metrics["dice_mean"] == pytest.approx(0.9)
    for group in report.subgroups:
        if group.attribute == "cohort":
            assert metrics[f"cohort/{group.group}/specificity"] == group.metrics["specificity"].value
    assert not [name for name in metrics if name.startswith("validation_")]  # the training's own, by epoch
    logged = tracking.client().get_logged_model(model[1].removeprefix("models:/"))
    assert {metric.key: metric.value for metric in logged.metrics} == metrics


def test_several_classes_have_top_k_and_each_its_figures_and_curves(tracking: Tracking, model: tuple[str, str]) -> None:
    report = build_report(evaluation(60, ["normal", "bacterial", "viral (RSV)"]))
    assert record_evaluation(tracking, evaluated(model, "evaluate-1", report)) is None
    client = tracking.client()
    metrics = client.get_run(model[0]).data.metrics
    words = {"normal": "normal", "bacterial": "bacterial", "viral (RSV)": "viral-RSV-"}
    for name, word in words.items():
        for metric in ("roc_auc", "recall", "specificity"):
            assert metrics[f"class/{word}/{metric}"] == report.per_class[name][metric].value
    curves = ("roc", "precision_recall", "reliability", "decision_curve")
    figures = {f"{curve}_{word}.svg" for curve in curves for word in words.values()}
    folder = "evaluation/evaluate-1"
    assert artifacts(tracking, model[0], folder) == {"report.html", "report.json", "confusion_matrix.svg", *figures}
    page = Path(client.download_artifacts(model[0], f"{folder}/report.html")).read_text()
    assert page == "<html>evaluate-1</html>"
    assert metrics["test_top_2_accuracy_low"] < metrics["test_top_2_accuracy"] < metrics["test_top_2_accuracy_high"]


def test_report_and_figures_are_artifacts(tracking: Tracking, model: tuple[str, str]) -> None:
    report = build_report(evaluation())
    record_evaluation(tracking, evaluated(model, "evaluate-1", report))
    client = tracking.client()
    figures = {f"{name}.svg" for name in ("roc", "precision_recall", "reliability", "decision_curve")}
    folder = "evaluation/evaluate-1"
    assert artifacts(tracking, model[0], folder) == {"report.html", "report.json", "confusion_matrix.svg", *figures}
    stored = Path(client.download_artifacts(model[0], f"{folder}/report.json")).read_bytes()
    assert read_report(stored) == report
    drawn = Path(client.download_artifacts(model[0], f"{folder}/confusion_matrix.svg")).read_text()
    cells = [str(count) for row in report.confusion_matrix.test.counts for count in row]
    assert all(f">{cell}</text>" in drawn for cell in cells)


def test_the_newest_report_is_the_current_one_and_those_before_stay(tracking: Tracking, model: tuple[str, str]) -> None:
    first = build_report(evaluation(context={"dice": DICE})).model_copy(update={"created": "2026-01-01T00:00:00+00:00"})
    second = build_report(evaluation(80)).model_copy(update={"created": "2026-01-02T00:00:00+00:00"})
    for name, report in (("evaluate-1", first), ("evaluate-2", second), ("evaluate-2", second)):
        assert record_evaluation(tracking, evaluated(model, name, report)) is None
    client = tracking.client()
    run = client.get_run(model[0])
    assert run.data.tags[REPORT_TAG] == "evaluation/evaluate-2/report.html"
    page = tracking.run_address(model[0], "evaluation/evaluate-2/report.html")
    assert f"({page})" in run.data.tags[NOTE_TAG]
    assert f"/runs/{model[0]}/artifacts/evaluation/evaluate-2/report.html?" in str(page)
    assert run.data.metrics["test_roc_auc"] == second.performance.test["roc_auc"].value
    assert math.isnan(run.data.metrics["dice_mean"])  # the first report had one, the second has none
    assert len(client.get_metric_history(model[0], "test_roc_auc")) == 2
    for name in ("evaluate-1", "evaluate-2"):
        assert "report.html" in artifacts(tracking, model[0], f"evaluation/{name}")


def test_the_description_leads_to_dagster_and_spares_what_a_person_wrote(
    tracking: Tracking, model: tuple[str, str]
) -> None:
    report = build_report(evaluation(context={"phantoms": True}))
    record_evaluation(tracking, evaluated(model, "evaluate-1", report))
    note = tracking.client().get_run(model[0]).data.tags[NOTE_TAG]
    architecture = report.model.architecture
    assert f"http://dagster.example/assets/evaluation_report?partition={architecture}" in note
    estimate = report.performance.test["roc_auc"]
    assert f"ROC-AUC: {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" in note
    assert "drawn images, not on patients" in note
    tracking.client().set_tag(model[0], NOTE_TAG, "the one we showed on Monday")
    record_evaluation(tracking, evaluated(model, "evaluate-2", report))
    assert tracking.client().get_run(model[0]).data.tags[NOTE_TAG] == "the one we showed on Monday"


def test_a_run_that_is_gone_costs_a_sentence_and_not_the_report(tracking: Tracking) -> None:
    problem = record_evaluation(
        tracking, evaluated(("0" * 32, "models:/m-1"), "evaluate-1", build_report(evaluation()))
    )
    assert problem is not None
    assert "not found" in problem
