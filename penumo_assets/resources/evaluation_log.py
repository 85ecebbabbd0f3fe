"""What MLflow gets to know of an evaluation: on the run that trained the model, and on the model itself.

Here and not in the job: a report is then in MLflow wherever its job ran, also if the job's result was reused, and the
job needs no way to MLflow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import nan
from typing import Any

from penumo_assets.jobs.tracking_address import redacted
from penumo_assets.metrics.records import Estimate
from penumo_assets.metrics.report.content import Report
from penumo_assets.metrics.report.inline import charts, file_word
from penumo_assets.metrics.report.prose import words
from penumo_assets.resources.tracking import Tracking

FOLDER = "evaluation"  # of the run's artifacts; below it a folder per report
EXTERNAL = "external"  # the same for reports on a cohort that the model was not trained on
REPORT_TAG = "penumo.report"
GATES_TAG = "penumo.gates"
NOTE_TAG = "mlflow.note.content"  # what MLflow shows as a run's description
OPENING = "**Evaluated**"
HEADLINES = ("roc_auc", "pr_auc", "recall", "specificity", "f1")


@dataclass(frozen=True)
class Evaluated:
    """A report of a model that was trained as the MLflow run ``run_id`` and logged there as ``model_uri``.

    ``name`` is the report's own, ``page`` is report.html, ``values`` are its headline figures.
    """

    run_id: str
    model_uri: str | None
    name: str
    report: Report
    page: str
    values: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Of the run's artifacts: reports on an external cohort have a part of their own."""
        part = f"{EXTERNAL}/{self.report.external}" if self.report.external else FOLDER
        return f"{part}/{self.name}"


def record_evaluation(tracking: Tracking, evaluated: Evaluated) -> str | None:
    """Put a report on its model's run: ``None``, or why MLflow did not take it, which costs the report nothing.

    The newest report is the current one: its figures are the run's, and the tags and the description name it. The
    artifacts of those before stay. Recording a report again changes nothing. A report on an external cohort stands
    beside it: its figures are ``external/{cohort}/{metric}``, and ``penumo.report.{cohort}`` names it.
    """
    try:
        _send(tracking, evaluated)
    except Exception as error:
        return redacted(error, tracking.address())
    return None


def _send(tracking: Tracking, evaluated: Evaluated) -> None:
    from mlflow.entities import Metric, RunTag

    client, report, run_id = tracking.client(), evaluated.report, evaluated.run_id
    run, model_id = client.get_run(run_id), (evaluated.model_uri or "").removeprefix("models:/") or None
    files = {"report.html": evaluated.page, "report.json": report.model_dump_json(by_alias=True, indent=1)}
    files |= {f"{name}.svg": svg for name, svg in charts(report).items()}
    for name, text in files.items():
        client.log_text(run_id, text, f"{evaluated.folder}/{name}")
    figures = tracked_figures(evaluated.values, report)
    # MLflow cannot forget a figure: one that an earlier report had and this one leaves undefined becomes NaN.
    known = {name: nan if value is None else value for name, value in figures.items()}
    known = {name: value for name, value in known.items() if figures[name] is not None or name in run.data.metrics}
    when = int(datetime.fromisoformat(report.created).timestamp() * 1000)
    metrics = [Metric(name, float(value), when, 0, model_id=model_id, run_id=run_id) for name, value in known.items()]
    page = f"{evaluated.folder}/report.html"
    if report.external:
        tags = {f"{REPORT_TAG}.{report.external}": page}
    else:
        tags = {REPORT_TAG: page, GATES_TAG: gates_in_words(report)}
        if run.data.tags.get(NOTE_TAG, OPENING).startswith(OPENING):  # nobody has written a description of their own
            tags[NOTE_TAG] = description(tracking, run_id, report, evaluated.name)
    client.log_batch(run_id, metrics=metrics, tags=[RunTag(name, text) for name, text in tags.items()])


def tracked_figures(values: Mapping[str, Any], report: Report) -> dict[str, float | None]:
    """MLflow's metrics of a report: its headline figures on test, of several classes each one's against the rest as
    ``class/{class}/{metric}``, and, by cohort, ``cohort/{cohort}/{metric}``.

    Validation's are left out: the training logged its own, under these names and by epoch.
    """
    figures = {
        name: value
        for name, value in values.items()
        if not name.startswith("validation_") and not isinstance(value, bool | str)
    }
    if report.data.positive_class is None:
        for part, metrics in report.per_class.items():
            for name, estimate in metrics.items():
                figures |= _with_ends(f"class/{file_word(part)}/{name}", estimate)
    if report.external:
        return {f"{EXTERNAL}/{report.external}/{name}": value for name, value in figures.items()}
    for group in report.subgroups:
        if group.attribute == "cohort":
            for name, estimate in group.metrics.items():
                figures |= _with_ends(f"cohort/{group.group}/{name}", estimate)
    return figures


def _with_ends(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def gates_in_words(report: Report) -> str:
    """``passed``, or which gates did not pass and why."""
    return "; ".join(f"{gate.gate}: {gate.reason}" for gate in report.gates if gate.holds_up) or "passed"


def description(tracking: Tracking, run_id: str, report: Report, name: str) -> str:
    """The report called ``name`` in a few lines of Markdown, for the run ``run_id`` or a version of its model."""
    test, splits, architecture = report.performance.test, report.data.splits, report.model.architecture
    lines = [f"{words(metric)}: {_in_words(test[metric])}" for metric in HEADLINES]
    artifact = f"{FOLDER}/{name}/report.html"
    address = tracking.run_address(run_id, artifact)
    shown = f"[report.html]({address})" if address else artifact
    lines += [f"Gates: {gates_in_words(report)}", f"Report, among the run's artifacts: {shown}"]
    if tracking.dagster_ui:
        for asset in ("trained_model", "evaluation_report"):
            lines.append(f"[{asset} in Dagster]({tracking.asset_address(asset, architecture)})")
    if report.phantoms:
        lines.append("Trained on drawn images, not on patients")
    head = f"{OPENING} {report.created[:10]} on {splits.test.images} test images of {splits.test.patients} patients"
    return "\n".join([head, "", *(f"- {line}" for line in lines)])


def _in_words(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"undefined ({estimate.reason})"
    ends = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{ends}"
