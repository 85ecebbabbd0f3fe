"""How a report stands on the page of the asset that made it."""

from collections.abc import Mapping
from typing import Any

from dagster import AssetExecutionContext, MetadataValue, TableMetadataValue

from penumo_assets.assets.pages import listed, mlflow_run, rounded, table
from penumo_assets.metrics.report.content import Report
from penumo_assets.metrics.report.inline import chart_captions, chart_data_uris
from penumo_assets.records import ModelRecord
from penumo_assets.resources.evaluation_log import Evaluated, record_evaluation
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking

PASSED, FAILED = "passed", "failed"
STATUS_WORDS = {"passed": PASSED, "failed": FAILED, "not_asked": "not asked for", "not_decidable": "not decidable"}


def report_metadata(storage: Storage, prefix: str, report: Report, values: Mapping[str, Any]) -> dict[str, Any]:
    """Link, gates, intervals, charts and figures of the report below ``prefix``; ``values`` are its headlines."""
    return {
        **_report_link(storage, f"{prefix}/report.html"),
        "gates": table(gate_rows(report), ("gate", "status", "value", "limit", "reason")),
        "intervals": _interval_table(values),
        **_curves(report),
        **_numbers(values),
        "undefined": listed(name for name, value in _without_ends(values).items() if value is None),
    }


def _report_link(storage: Storage, key: str) -> dict[str, MetadataValue]:
    """The report as a link for the browser where an address is known, and where it lies."""
    address = storage.page_of(key)
    place: dict[str, MetadataValue] = {"location": MetadataValue.text(storage.store.location(key))}
    return {"report": MetadataValue.url(address), **place} if address else place


def _without_ends(values: Mapping[str, Any]) -> dict[str, Any]:
    """The figures; the ends of their intervals stand in a table of their own."""
    ends = {f"{name}_{end}" for name in values for end in ("low", "high")}
    return {name: value for name, value in values.items() if name not in ends}


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure that Dagster can plot over time."""
    return {name: rounded(value) for name, value in _without_ends(values).items() if isinstance(value, int | float)}


def _interval_table(values: Mapping[str, Any]) -> TableMetadataValue:
    """The metrics that can have a 95 % interval, with it."""
    found = (
        {
            "metric": name,
            "value": "undefined" if values[name] is None else values[name],
            **{end: "none" if values[f"{name}_{end}"] is None else values[f"{name}_{end}"] for end in ("low", "high")},
        }
        for name in values
        if f"{name}_low" in values
    )
    return table(found, ("metric", "value", "low", "high"))


def _curves(report: Report) -> dict[str, MetadataValue]:
    captions = chart_captions(report)
    return {
        name: MetadataValue.md(f"![{name}]({uri})\n\n{captions[name]}") for name, uri in chart_data_uris(report).items()
    }


def gate_rows(report: Report) -> list[dict[str, Any]]:
    """What each gate did, whether it was asked for or not: ``gate, status, value, limit, reason``."""
    return [
        {
            "gate": result.gate,
            "status": STATUS_WORDS[result.status],
            "value": "none" if result.value is None else result.value,
            "limit": "none" if result.limit is None else result.limit,
            "reason": result.reason,
        }
        for result in report.gates
    ]


def tracked_report(
    context: AssetExecutionContext,
    store: ObjectStore,
    tracking: Tracking,
    model: ModelRecord,
    prefix: str,
    report: Report,
    values: Mapping[str, Any],
) -> MetadataValue:
    """Record a published report on the model's MLflow run; the run as a link, or what kept MLflow from taking it."""
    run_id, uri = model.mlflow_run_id, model.values.get("mlflow_model_uri")
    if run_id is None:
        return MetadataValue.text("none: the model was trained without MLflow")
    page = store.read(f"{prefix}/report.html").decode("utf-8")
    problem = record_evaluation(tracking, Evaluated(run_id, uri, prefix.rpartition("/")[2], report, page, values))
    if problem:
        context.log.warning(f"the report is not in MLflow: {problem}")
        return MetadataValue.text(f"{run_id} does not show this report: {problem}")
    return mlflow_run(tracking, run_id)
