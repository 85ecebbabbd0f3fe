"""From trained models to a report each, and from the reports to one champion.

Enters: `trained_model`, `training_set`. Leaves: `evaluation_report` (report.json, report.html, predictions.parquet)
and `champion_model` (the winner on validation among those that pass the gates, registered in MLflow).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dagster import (
    AllPartitionMapping,
    AssetDep,
    AssetExecutionContext,
    Config,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    TableRecord,
    asset,
)
from pydantic import Field

from penumo_assets.assets.catalog import CHAMPION_RECORD, LEARNING, OWNERS, PROCESSING_POOL, SERVING, report_record
from penumo_assets.assets.dataset import current_training_set
from penumo_assets.assets.jobs import run_job
from penumo_assets.assets.training import current_model
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.metrics.gates import GateResult, Gates, check_gates, choose_champion
from penumo_assets.partitions import architectures
from penumo_assets.resources.compute.spec import JobInput, JobRunner, JobSpec, bundle_digest
from penumo_assets.resources.storage import ObjectMissing, ObjectStore, Storage
from penumo_assets.resources.tracking import Tracking


class EvaluationConfig(Config):
    """How a model is evaluated."""

    bootstrap: int = Field(default=2000, description="Resamples (by patient) behind every 95 % interval.")
    seed: int = Field(default=0, description="Seed of the resampling.")


class ChampionConfig(Config):
    """Gates a model must pass before it may become the champion; null switches a gate off."""

    min_roc_auc_low: float | None = Field(
        default=0.5, description="Floor for the lower confidence bound of the test ROC-AUC."
    )
    min_sensitivity: float | None = Field(default=0.5, description="Floor for the test sensitivity at the threshold.")
    min_specificity: float | None = Field(default=None, description="Floor for the test specificity at the threshold.")
    max_ece: float | None = Field(default=0.25, description="Ceiling for the expected calibration error on test.")
    min_subgroup_roc_auc: float | None = Field(default=None, description="Floor for the ROC-AUC of every subgroup.")
    require_no_leakage: bool = Field(default=True, description="No patient and no image stands in two splits.")
    beat_shortcuts: bool = Field(
        default=False, description="No shortcut (aspect ratio, intensity, file size) is better than the model."
    )

    def gates(self) -> Gates:
        return Gates(**{name: getattr(self, name) for name in ChampionConfig.model_fields})


# The gates as every report shows them; `champion_model` may be launched with others.
GATES = ChampionConfig().gates()


@asset(
    deps=["trained_model", "training_set"],
    partitions_def=architectures,
    group_name=LEARNING,
    owners=OWNERS,
    kinds={"scikitlearn", "html"},
    code_version="1",
    pool=PROCESSING_POOL,
    description="The newest model of an architecture on the current test split: every metric with a patient-level "
    "bootstrap interval, the threshold chosen by Youden's index on validation, shortcut baselines beside the model.",
)
def evaluation_report(
    context: AssetExecutionContext, config: EvaluationConfig, storage: Storage, jobs: JobRunner
) -> MaterializeResult:
    """Evaluate the partition's newest model and publish its report."""
    architecture, store = context.partition_key, storage.store
    model, dataset = current_model(store, architecture), current_training_set(store)
    known = report_context(store, dataset) | {
        "mlflow_run_id": model["mlflow_run_id"],
        "gates": asdict(GATES),
        "config_digest": hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16],
    }
    spec = JobSpec(
        kind="processing",
        program="evaluate",
        asset="evaluate",
        partition=architecture,
        arguments=("--bootstrap", str(config.bootstrap), "--seed", str(config.seed)),
        inputs={
            "model": JobInput(model["prefix"], (model["name"],)),
            "dataset": JobInput(dataset["prefix"], tuple(dataset["names"])),
        },
        documents={"context": {"context.json": json.dumps(known, sort_keys=True).encode()}},
        outputs=("report",),
        result_output="report",
    )
    result = run_job(context, jobs, spec)
    prefix = f"reports/{architecture}/{result.job_name}"
    names = result.outputs["report"]
    store.copy_all((result.key("report", name), f"{prefix}/{name}") for name in names)
    record = {"prefix": prefix, "names": list(names), "model": model, "values": result.values}
    store.write_json(report_record(architecture), record)
    jobs.discard_outputs(result)
    numbers = {name: value for name, value in result.values.items() if isinstance(value, int | float)}
    undefined = [name for name, value in result.values.items() if value is None]
    return MaterializeResult(
        metadata={
            **numbers,
            "undefined": undefined,
            "report": store.location(f"{prefix}/report.html"),
            **_curves(json.loads(store.read(f"{prefix}/report.json"))),
            "model_job": model["job_name"],
            **result.metadata,
        },
        data_version=DataVersion(result.job_name),
    )


def _curves(report: Mapping[str, Any]) -> dict[str, MetadataValue]:
    from penumo_assets.metrics.report.inline import chart_data_uris  # matplotlib takes a second to import

    return {name: MetadataValue.md(f"![{name}]({uri})") for name, uri in chart_data_uris(report).items()}


def current_report(store: ObjectStore, architecture: str) -> dict:
    """The record of an architecture's newest report."""
    return store.read_json(report_record(architecture))


def report_context(store: ObjectStore, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says of the way the data came: counts and exclusions per cohort, Dice, versions."""
    flow: dict[str, dict[str, Any]] = {}
    dices, phantoms = [], False
    for cohort in dataset["cohorts"]:
        rows = read_manifest(store, cohort)
        rejected = Counter(row.code or "" for row in rows if row.status == "rejected")
        labelled = sum(row.label is not None for row in rows if "npz" in row.stages)
        usable = sum("npz" in row.stages for row in rows)
        flow[cohort] = {
            "landed": len(rows),
            "accepted": usable,
            "rejected": dict(rejected.most_common()),
            "unlabelled": usable - labelled,
        }
        for row in rows:
            facts = row.stages["masks"].facts if "masks" in row.stages else {}
            if "dice" in facts:
                dices.append(
                    {
                        "cohort": cohort,
                        "patient_id": row.patient_id,
                        "image_id": row.image_id,
                        "dice": facts["dice"],
                        "iou": facts["iou"],
                    }
                )
        phantoms = phantoms or any(row.extra.get("phantom") == "true" for row in rows)
    return {
        "flow": flow,
        "dice": dices,
        "cohorts": list(dataset["cohorts"]),
        "code_version": bundle_digest()[:16],
        "phantoms": phantoms,
    }


@asset(
    deps=[AssetDep("evaluation_report", partition_mapping=AllPartitionMapping())],
    group_name=SERVING,
    owners=OWNERS,
    kinds={"mlflow"},
    code_version="1",
    description="The architecture with the highest validation ROC-AUC among those whose report passes the gates, "
    "registered in MLflow with the alias `champion` (the one before becomes `previous`).",
)
def champion_model(
    context: AssetExecutionContext, config: ChampionConfig, storage: Storage, tracking: Tracking
) -> MaterializeResult:
    """Judge the reports that exist, and promote the winner."""
    store = storage.store
    records = existing_reports(store)
    if not records:
        raise Failure("no evaluation report exists: materialize evaluation_report first", allow_retries=False)
    reports = {name: store.read_json(f"{record['prefix']}/report.json") for name, record in records.items()}
    gates = {name: check_gates(report, config.gates()) for name, report in reports.items()}
    passed = [name for name, results in gates.items() if all(result.passed for result in results)]
    winner = choose_champion(reports, passed)
    table = gate_table(gates)
    if winner is None:
        failed = "; ".join(f"{name}: {r.gate} ({r.reason})" for name in gates for r in gates[name] if not r.passed)
        raise Failure(f"no model passes the gates: {failed}", metadata={"gates": table}, allow_retries=False)
    model = records[winner]["model"]
    archive = f"{model['prefix']}/{model['name']}"
    tags = {"architecture": winner, "dataset_digest": model["dataset_digest"], "dagster_run_id": context.run.run_id}
    version = tracking.promote(model["mlflow_run_id"], model["values"]["mlflow_model_uri"], tags)
    record = {"architecture": winner, "version": version, "model": model, "report": records[winner]["prefix"]}
    store.write_json(CHAMPION_RECORD, record)
    return MaterializeResult(
        metadata={
            "architecture": winner,
            "model_version": version,
            "validation_roc_auc": records[winner]["values"]["validation_roc_auc"],
            "test_roc_auc": records[winner]["values"]["test_roc_auc"],
            "candidates": sorted(records),
            "gates": table,
            "location": store.location(archive),
        },
        data_version=DataVersion(model["job_name"]),
    )


def existing_reports(store: ObjectStore) -> dict[str, dict]:
    """The newest report's record of each architecture that has one."""
    records = {}
    for architecture in architectures.get_partition_keys():
        try:
            records[architecture] = current_report(store, architecture)
        except ObjectMissing:
            continue
    return records


def gate_table(gates: Mapping[str, Sequence[GateResult]]) -> MetadataValue:
    records = [
        TableRecord({"architecture": name, "gate": item.gate, "passed": item.passed, "found": item.reason})
        for name, results in gates.items()
        for item in results
    ]
    return MetadataValue.table(records)
