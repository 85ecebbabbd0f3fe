"""Checks of models and what they answer: quality gates, the champion's records, drift of a cohort's predictions."""

from typing import Any

from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity, asset_check

from penumo_assets.assets.pages import listed, rounded, table
from penumo_assets.assets.report_page import FAILED, PASSED, gate_rows
from penumo_assets.checks.partitioned import partition_of, partitioned_check
from penumo_assets.configs.train import Gates
from penumo_assets.metrics.report.content import read_report
from penumo_assets.partitions import architectures, cohorts
from penumo_assets.promotion import disagreement, read_champion
from penumo_assets.records import PredictionsRecord, ReportRecord
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking


def _gate_check(gate: str, description: str) -> Any:
    """A blocking check for one gate, which reads what the report itself says of it.

    A failed one fails the run of its architecture. It does not keep `champion_model` from choosing another
    architecture; see `assets/champion.py`.
    """

    @partitioned_check(
        architectures,
        name=f"gate_{gate}",
        asset="evaluation_report",
        blocking=True,
        description=f"Quality gate `{gate}`: {description} Error: stops the run; the model cannot become champion. "
        "Warning: the gate was not asked for, or the test images cannot tell.",
    )
    def check(context: AssetCheckExecutionContext, storage: Storage) -> AssetCheckResult:
        record = ReportRecord.need(storage.store, partition_of(context))
        rows = gate_rows(read_report(storage.store.read(f"{record.prefix}/report.json")))
        row = next(row for row in rows if row["gate"] == gate)
        status, reason = row["status"], row["reason"]
        return AssetCheckResult(
            passed=status == PASSED,
            severity=AssetCheckSeverity.ERROR if status == FAILED else AssetCheckSeverity.WARN,
            description=f"{status}: {reason}",
            metadata={name: rounded(row[name]) for name in ("status", "value", "limit")},
        )

    return check


GATE_CHECKS = [_gate_check(name, field.description or "") for name, field in Gates.model_fields.items()]


@asset_check(
    asset="champion_model",
    blocking=True,
    description="MLflow's aliases and the record agree on champion and previous, and the champion can be served. "
    "Error: stops the run.",
)
def champion_agrees(storage: Storage, tracking: Tracking) -> AssetCheckResult:
    store = storage.store
    record = read_champion(store)
    archive = f"{record.serving.prefix}/{record.serving.name}"
    problem = disagreement(store, tracking) or (None if store.exists(archive) else f"{archive} is gone")
    return AssetCheckResult(
        passed=problem is None,
        severity=AssetCheckSeverity.ERROR,
        metadata={"problem": problem or "none", "version": record.version},
    )


@partitioned_check(
    cohorts,
    asset="predictions",
    description="Predictions and image statistics of the cohort are distributed as in the model's own data: "
    "population stability index below the asset's `max_psi`, or no higher than chance explains. A warning: the model "
    "answers, but for other images than it was judged on, or a feature cannot be compared.",
)
def drift(context: AssetCheckExecutionContext, storage: Storage) -> AssetCheckResult:
    found = PredictionsRecord.need(storage.store, partition_of(context)).drift
    rows = found or ({"feature": "every feature", "moved": None},)
    columns = ("feature", "index", "expected", "chance", "reference_images", "images", "moved")
    return AssetCheckResult(
        passed=all(row["moved"] is False for row in rows),
        severity=AssetCheckSeverity.WARN,
        metadata={
            "moved": listed(row["feature"] for row in rows if row["moved"]),
            "not_comparable": listed(row["feature"] for row in rows if row["moved"] is None),
            "population_stability": table(({name: row.get(name) for name in columns} for row in rows), columns),
        },
    )
