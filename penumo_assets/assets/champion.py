"""From the reports to one model in use.

Enters: `evaluation_report` of every architecture. Leaves: `champion_model`: the winner on validation among those that
pass their gates, registered in MLflow (and as a SageMaker model package on AWS), with an archive that serves it; and
the best of the others, registered beside it as `challenger`.

Why the gates are judged twice. `evaluation_report` is partitioned by architecture and `champion_model` is not. A
blocking check stops what is downstream in its own run, and fails that run: an architecture below a gate is red. A
backfill nevertheless goes on to `champion_model`, because the report itself was materialized, and so it should: the
other architecture may have passed. What keeps the failed one out is therefore this asset, which reads each report's
own gate results and chooses among those that passed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
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
    asset,
)
from pydantic import Field

from penumo_assets.assets.candidates import Candidate, best_of, candidate_table, films_among, find_candidates
from penumo_assets.assets.pages import escaped, link, listed, mlflow_run, rounded, table
from penumo_assets.assets.segmenter import current_segmenter
from penumo_assets.assets.shared import OWNERS, SERVING
from penumo_assets.automation import REPORTS_UPDATED
from penumo_assets.challenge import Verdict, judge
from penumo_assets.cohort.publish import read_manifest, read_settings
from penumo_assets.cohort.retire import cohorts_in_use
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.metrics.report.content import GateResult
from penumo_assets.promotion import NOT_PROMOTED, Winner, challenge, promote
from penumo_assets.records import ChampionRecord, DecisionRule, TrainingSetRecord, VersionRecord
from penumo_assets.resources.evaluation_log import description
from penumo_assets.resources.model_package import Approval, ModelPackages
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking

# A model that was never asked for one of these needs a person's approval before it is deployed.
APPROVING_GATES = ("min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc", "require_no_leakage")
FIGURES = ("champion", "challenger", "difference", "low", "high", "margin", "p_worse", "worse", "images", "patients")


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


@asset(
    deps=[AssetDep("evaluation_report", partition_mapping=AllPartitionMapping())],
    automation_condition=REPORTS_UPDATED,
    group_name=SERVING,
    owners=OWNERS,
    kinds={"mlflow"},
    code_version="3",
    description="The architecture with the highest validation ROC-AUC among those whose report passes its gates, "
    "registered in MLflow with the alias `champion` (the one before becomes `previous`; `penumo rollback` goes back). "
    "The best of the others is registered as `challenger`.",
)
def champion_model(
    context: AssetExecutionContext,
    config: ChampionConfig,
    storage: Storage,
    tracking: Tracking,
    packages: ModelPackages,
) -> MaterializeResult:
    """Judge the reports that exist, promote the winner, and register who challenges it."""
    store, run_id = storage.store, context.run.run_id
    withdrawn = {} if config.allow_withdrawn else tracking.withdrawn_runs()
    candidates = find_candidates(store, withdrawn, films_among(store, cohorts_in_use(store, context.instance)))
    best = _best(candidates)
    held = ChampionRecord.find(store)
    verdict = judge(store, held, best.record, best.report, config.margin)
    forced = config.promote == "force" and verdict.refused is not None
    winner, doubts = _winner(store, tracking, best, _history(best, held, verdict, forced))
    challenger = None
    if held and verdict.refused and not forced:
        champion = held
        challenger = challenge(store, tracking, packages, winner, run_id)
    else:
        champion = promote(store, tracking, packages, winner, run_id)
        second = _second(store, candidates, best, champion, config.margin)
        if second is None:
            tracking.challenge(None)
        else:
            verdict = second[1]
            runner_up, _ = _winner(store, tracking, second[0], f"{NOT_PROMOTED} {verdict.refused}")
            challenger = challenge(store, tracking, packages, runner_up, run_id)
    return MaterializeResult(
        metadata={
            "architecture": champion.architecture,
            "model_version": champion.version,
            "challenger": f"version {challenger.version} ({challenger.architecture})" if challenger else "none",
            **_comparison(verdict, champion, challenger, best),
            **_registered(store, tracking, champion, candidates),
            "candidates": candidate_table(candidates),
            "doubts": listed(doubts),
        },
        data_version=DataVersion(f"{champion.training_job}:{champion.version}"),
    )


def _registered(
    store: ObjectStore, tracking: Tracking, champion: ChampionRecord, candidates: Sequence[Candidate]
) -> dict[str, Any]:
    """What is recorded of the champion; its headline figures, where its report is its architecture's newest."""
    values = next((item.record.values for item in candidates if item.record.prefix == champion.report), {})
    names = [name for name in ("validation_roc_auc", "test_roc_auc") if name in values]
    return {
        "promoted": champion.promoted,
        "previous_version": champion.previous or "none",
        "mlflow_version": link(f"version {champion.version}", tracking.version_address(champion.version) or ""),
        "mlflow_run": mlflow_run(tracking, champion.model.mlflow_run_id),
        **{name: rounded(values[name]) for name in names},
        "threshold": rounded(champion.rule.threshold) if champion.rule.threshold is not None else "none",
        "approval": champion.approval,
        "model_package": champion.package or "none",
        "location": store.location(f"{champion.serving.prefix}/{champion.serving.name}"),
    }


def _best(candidates: Sequence[Candidate]) -> Candidate:
    if not candidates:
        raise Failure("no evaluation report exists: materialize evaluation_report first", allow_retries=False)
    best = best_of(candidates)
    if best is None:
        why = "; ".join(f"{item.architecture}: {item.refused or 'no validation ROC-AUC'}" for item in candidates)
        raise Failure(
            f"no model may become the champion, the one before stays: {why}",
            metadata={"candidates": candidate_table(candidates)},
            allow_retries=False,
        )
    return best


def _second(
    store: ObjectStore, candidates: Sequence[Candidate], best: Candidate, champion: ChampionRecord, margin: float
) -> tuple[Candidate, Verdict] | None:
    """The best of the others, and why it is not the champion; the one before the champion is `previous` already."""
    previous = VersionRecord.find(store, champion.previous) if champion.previous else None
    known = {champion.training_job, previous and previous.training_job}
    second = best_of(item for item in candidates if item.record.model.job_name not in known)
    if second is None:
        return None
    verdict = judge(store, champion, second.record, second.report, margin)
    if verdict.refused:
        return second, verdict
    own, its = f"{second.validation_auc:.3f}", f"{best.validation_auc:.3f}"
    reason = f"its validation ROC-AUC of {own} is not above the {its} of version {champion.version}"
    return second, replace(verdict, refused=reason, short=f"validation ROC-AUC {own}, not above the champion's {its}")


def _history(candidate: Candidate, held: ChampionRecord | None, verdict: Verdict, forced: bool) -> str:
    """How a model fared against the champion, for its record; the champion itself keeps what it has."""
    if held and held.training_job == candidate.record.model.job_name:
        return held.promoted
    if verdict.refused:
        return f"{'forced, although' if forced else NOT_PROMOTED} {verdict.refused}"
    if "test" not in verdict.comparisons:
        return f"not compared: {verdict.note}"
    return f"not significantly worse: difference {verdict.comparisons['test'].difference:+.3f} in test ROC-AUC"


def _comparison(
    verdict: Verdict, champion: ChampionRecord, challenger: VersionRecord | None, best: Candidate
) -> dict[str, Any]:
    """The figures of both models on the same patients, a column for each split; why the challenger is one."""
    splits = verdict.comparisons
    rows = [{"figure": name, **{split: getattr(splits[split], name) for split in splits}} for name in FIGURES]
    figures = {"comparison": table(rows if splits else [], ("figure", *splits))}
    if challenger is None or verdict.refused is None:
        return figures
    force = "materialize champion_model with promote: force"
    lost = challenger.training_job == best.record.model.job_name
    why = (
        f"Version {challenger.version} ({challenger.architecture}) is registered and not in use: {verdict.refused}. "
        "Both models ranked the same patients. The difference is the challenger's ROC-AUC minus the champion's, with "
        "its 95 % interval by paired DeLong; films of one patient count as one. A model that loses more than the "
        f"margin on validation, or significantly on test, does not replace version {champion.version}. To use it "
        f"nevertheless: {force if lost else f'penumo rollback --to {challenger.version}'}."
    )
    return {"stays_a_challenger": verdict.short, **figures, "explanation": MetadataValue.md(escaped(why))}


def approval_of(gates: Sequence[GateResult]) -> Approval:
    """Approved if every gate was asked for and passed; left to a person if some were not asked for."""
    if any(gate.holds_up for gate in gates):
        return Approval.rejected
    passed = {gate.gate for gate in gates if gate.passed}
    return Approval.approved if passed.issuperset(APPROVING_GATES) else Approval.pending


def _winner(store: ObjectStore, tracking: Tracking, candidate: Candidate, promoted: str) -> tuple[Winner, list[str]]:
    """The winner with all that serving it takes, and what a person should know of that."""
    prepare, doubts = _prepared_with(store)
    segmenter = current_segmenter(store)
    report, model = candidate.report, candidate.record.model
    if off := [g.gate for g in report.gates if g.status == "not_asked" and g.gate in APPROVING_GATES]:
        doubts.append(f"gates that were switched off: {', '.join(off)}")
    run_id, name = model.mlflow_run_id or "", candidate.record.prefix.rpartition("/")[2]
    winner = Winner(
        architecture=candidate.architecture,
        model=model,
        report=candidate.record.prefix,
        rule=DecisionRule.model_validate(report.decision_rule.model_dump()),
        prepare=prepare,
        segmenter=(segmenter.prefix, segmenter.name) if segmenter.prefix else None,
        approval=approval_of(report.gates),
        phantoms=report.phantoms,
        promoted=promoted,
        description=f"{description(tracking, run_id, report, name)}\n- Champion or challenger: {promoted}",
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
