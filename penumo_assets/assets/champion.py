"""From the reports to one model in use.

Enters: `evaluation_report` of every architecture. Leaves: `champion_model`: the winner on validation among those that
pass their gates, registered in MLflow (and as a SageMaker model package on AWS), with an archive that serves it.

Why the gates are judged twice. `evaluation_report` is partitioned by architecture and `champion_model` is not. A
blocking check stops what is downstream in its own run, and fails that run: an architecture below a gate is red. A
backfill nevertheless goes on to `champion_model`, because the report itself was materialized, and so it should: the
other architecture may have passed. What keeps the failed one out is therefore this asset, which reads each report's
own gate results and chooses among those that passed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster import (
    AllPartitionMapping,
    AssetDep,
    AssetExecutionContext,
    Config,
    DataVersion,
    Failure,
    MaterializeResult,
    TableMetadataValue,
    asset,
)
from pydantic import Field

from penumo_assets.assets.evaluation import existing_reports
from penumo_assets.assets.pages import link, listed, mlflow_run, rounded, table
from penumo_assets.assets.segmenter import current_segmenter
from penumo_assets.assets.shared import OWNERS, SERVING
from penumo_assets.automation import REPORTS_UPDATED
from penumo_assets.challenge import Verdict, judge
from penumo_assets.cohort.publish import open_manifest, read_manifest, read_settings
from penumo_assets.cohort.retire import cohorts_in_use
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.metrics.gates import choose_champion
from penumo_assets.metrics.report.content import GateResult, InvalidReport, Report, read_report
from penumo_assets.promotion import NOT_PROMOTED, Winner, challenge, promote
from penumo_assets.records import ChampionRecord, DecisionRule, ReportRecord, TrainingSetRecord, VersionRecord
from penumo_assets.resources.evaluation_log import description
from penumo_assets.resources.model_package import Approval, ModelPackages
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking

# A model that was never asked for one of these needs a person's approval before it is deployed.
APPROVING_GATES = ("min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc", "require_no_leakage")


class ChampionConfig(Config):
    """Which models may be chosen, and what they must show against the champion."""

    promote: str = Field(
        default="compare",
        description="compare: a model that ranks the champion's validation patients worse, is significantly worse on "
        "the same test patients, or has other classes, stays a challenger. force: it becomes the champion all the "
        "same, and the record says so.",
        pattern="^(compare|force)$",
    )
    margin: float = Field(
        default=0.0, ge=0, le=1, description="ROC-AUC that may be lost against the champion before a model is worse."
    )
    allow_withdrawn: bool = Field(default=False, description="Also choose a model that was rolled back.")


@dataclass(frozen=True)
class Candidate:
    """An architecture's newest report, and why it may not win; ``None`` if it may."""

    record: ReportRecord
    report: Report
    refused: str | None


@asset(
    deps=[AssetDep("evaluation_report", partition_mapping=AllPartitionMapping())],
    automation_condition=REPORTS_UPDATED,
    group_name=SERVING,
    owners=OWNERS,
    kinds={"mlflow"},
    code_version="2",
    description="The architecture with the highest validation ROC-AUC among those whose report passes its gates, "
    "registered in MLflow with the alias `champion` (the one before becomes `previous`; `penumo rollback` goes back).",
)
def champion_model(
    context: AssetExecutionContext,
    config: ChampionConfig,
    storage: Storage,
    tracking: Tracking,
    packages: ModelPackages,
) -> MaterializeResult:
    """Judge the reports that exist, and promote the winner."""
    store = storage.store
    withdrawn = {} if config.allow_withdrawn else tracking.withdrawn_runs()
    films = films_among(store, cohorts_in_use(store, context.instance))
    candidates = find_candidates(store, withdrawn, films)
    if not candidates:
        raise Failure("no evaluation report exists: materialize evaluation_report first", allow_retries=False)
    architecture = choose_champion(
        {name: _validation_auc(item) for name, item in candidates.items() if item.refused is None}
    )
    if architecture is None:
        why = "; ".join(f"{name}: {item.refused or 'no validation ROC-AUC'}" for name, item in candidates.items())
        raise Failure(
            f"no model may become the champion, the one before stays: {why}",
            metadata={"candidates": _table(candidates)},
            allow_retries=False,
        )
    chosen = candidates[architecture]
    held = ChampionRecord.find(store)
    verdict = judge(store, held, chosen.record, chosen.report, config.margin)
    forced = config.promote == "force" and verdict.refused is not None
    winner, doubts = _winner(store, tracking, architecture, chosen, _history(verdict, forced))
    tags = {
        "architecture": architecture,
        "dataset_digest": winner.model.dataset_digest,
        "dagster_run_id": context.run.run_id,
        "report": winner.report,
    }
    shown: dict[str, Any] = {
        "candidates": _table(candidates),
        "comparison": _comparison(verdict),
        "doubts": listed(doubts),
    }
    if held and verdict.refused and not forced:
        return _kept(held, challenge(store, tracking, packages, winner, tags), verdict.refused, shown)
    record = promote(store, tracking, packages, winner, tags)
    values = chosen.record.values
    return MaterializeResult(
        metadata={
            "architecture": architecture,
            "model_version": record.version,
            "mlflow_version": link(f"version {record.version}", tracking.version_address(record.version) or ""),
            "mlflow_run": mlflow_run(tracking, record.model.mlflow_run_id),
            "previous_version": record.previous or "none",
            "promoted": record.promoted,
            "validation_roc_auc": rounded(values["validation_roc_auc"]),
            "test_roc_auc": rounded(values["test_roc_auc"]),
            "threshold": rounded(winner.rule.threshold) if winner.rule.threshold is not None else "none",
            "approval": winner.approval.value,
            "model_package": record.package or "none",
            **shown,
            "location": store.location(f"{record.serving.prefix}/{record.serving.name}"),
        },
        data_version=DataVersion(f"{record.training_job}:{record.version}"),
    )


def _kept(held: ChampionRecord, challenger: VersionRecord, refused: str, shown: Mapping[str, Any]) -> MaterializeResult:
    """The champion stays; the page says who challenged it, and why that was not enough."""
    remedy = "to use it nevertheless, materialize champion_model with promote: force"
    return MaterializeResult(
        metadata={
            "architecture": held.architecture,
            "model_version": held.version,
            "challenger": f"version {challenger.version} ({challenger.architecture})",
            "stays_a_challenger": f"{refused}; {remedy}",
            **shown,
        },
        data_version=DataVersion(f"{held.training_job}:{held.version}"),
    )


def _history(verdict: Verdict, forced: bool) -> str:
    """How a model fared against the champion, for its record."""
    if verdict.refused:
        return f"{'forced, although' if forced else NOT_PROMOTED} {verdict.refused}"
    if verdict.comparison is None:
        return f"not compared: {verdict.note}"
    return f"not significantly worse: difference {verdict.comparison.difference:+.3f} in test ROC-AUC"


def _comparison(verdict: Verdict) -> TableMetadataValue:
    columns = ("champion", "challenger", "difference", "low", "high", "margin", "p_worse", "worse", "patients")
    rows = [verdict.comparison.model_dump()] if verdict.comparison else []
    return table(rows, columns)


def films_among(store: ObjectStore, names: Iterable[str]) -> list[str]:
    """The cohorts that hold prepared images of patients, and not phantoms."""
    manifests = (open_manifest(store, name) for name in sorted(names))
    return [item.cohort for item in manifests if not item.phantoms and any(row.stages for row in item.rows)]


def find_candidates(
    store: ObjectStore, withdrawn: Mapping[str, str], films: Sequence[str] = ()
) -> dict[str, Candidate]:
    """Each architecture's newest report, judged.

    Refused are reports about another training set than the current one (their validation figures cannot be compared),
    models that were rolled back (``withdrawn``, by training run), those that failed a gate or that a gate cannot
    decide, and models of phantoms where there are cohorts of ``films``.
    """
    found: dict[str, Candidate] = {}
    records = existing_reports(store)
    if not records:
        return found
    dataset_digest = TrainingSetRecord.need(store).digest
    for name, record in records.items():
        report = _report(store, record)
        failed = [f"{gate.gate} ({gate.reason})" for gate in report.gates if gate.holds_up]
        refused = f"did not pass {'; '.join(failed)}" if failed else None
        if reason := withdrawn.get(record.model.mlflow_run_id or ""):
            refused = f"withdrawn: {reason}"
        if films and report.phantoms:
            refused = f"it was trained on phantoms, and there are films ({', '.join(films)}): train on those"
        if report.data.digest != dataset_digest:
            refused = "its report is about another training set: materialize evaluation_report again"
        found[name] = Candidate(record, report, refused)
    return found


def _report(store: ObjectStore, record: ReportRecord) -> Report:
    try:
        return read_report(store.read(f"{record.prefix}/report.json"))
    except InvalidReport as error:
        raise Failure(
            f"{record.prefix}/report.json was written by another version of this package: materialize "
            f"evaluation_report again ({error})",
            allow_retries=False,
        ) from error


def approval_of(gates: Sequence[GateResult]) -> Approval:
    """Approved if every gate was asked for and passed; left to a person if some were not asked for."""
    if any(gate.holds_up for gate in gates):
        return Approval.rejected
    passed = {gate.gate for gate in gates if gate.passed}
    return Approval.approved if passed.issuperset(APPROVING_GATES) else Approval.pending


def _winner(
    store: ObjectStore, tracking: Tracking, architecture: str, candidate: Candidate, promoted: str
) -> tuple[Winner, list[str]]:
    """The winner with all that serving it takes, and what a person should know of that."""
    prepare, doubts = _prepared_with(store)
    segmenter = current_segmenter(store)
    report, model = candidate.report, candidate.record.model
    if off := [g.gate for g in report.gates if g.status == "not_asked" and g.gate in APPROVING_GATES]:
        doubts.append(f"gates that were switched off: {', '.join(off)}")
    run_id, name = model.mlflow_run_id or "", candidate.record.prefix.rpartition("/")[2]
    winner = Winner(
        architecture=architecture,
        model=model,
        report=candidate.record.prefix,
        rule=DecisionRule.model_validate(report.decision_rule.model_dump()),
        prepare=prepare,
        segmenter=(segmenter.prefix, segmenter.name) if segmenter.prefix else None,
        approval=approval_of(report.gates),
        phantoms=report.phantoms,
        promoted=promoted,
        description=description(tracking, run_id, report, name),
    )
    return winner, doubts


def _prepared_with(store: ObjectStore) -> tuple[dict[str, Any], list[str]]:
    """How new images must be prepared: as most training images were; a doubt where cohorts differ."""
    images: Counter[str] = Counter()
    for cohort in TrainingSetRecord.need(store).cohorts:
        settings = PrepareConfig.parse(read_settings(store, cohort))
        images[settings.model_dump_json()] += sum("npz" in row.stages for row in read_manifest(store, cohort))
    chosen = PrepareConfig.model_validate_json(images.most_common(1)[0][0]).model_dump(mode="json")
    differ = ["the training cohorts were prepared with different settings: new images get the most common ones"]
    return chosen, differ if len(images) > 1 else []


def _validation_auc(candidate: Candidate) -> float | None:
    return candidate.report.performance.validation["roc_auc"].value


def _table(candidates: Mapping[str, Candidate]) -> TableMetadataValue:
    records = (
        {
            "architecture": name,
            "validation_roc_auc": _validation_auc(item),
            "verdict": item.refused or "may win",
        }
        for name, item in candidates.items()
    )
    return table(records, ("architecture", "validation_roc_auc", "verdict"))
