"""Which models may be chosen: each architecture's newest report, and what speaks against it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dagster import Failure, TableMetadataValue

from penumo_assets.assets.evaluation import existing_reports
from penumo_assets.assets.pages import table
from penumo_assets.cohort.publish import open_manifest
from penumo_assets.metrics.gates import choose_champion
from penumo_assets.metrics.report.content import InvalidReport, Report, read_report
from penumo_assets.records import ReportRecord, TrainingSetRecord
from penumo_assets.resources.storage.object_store import ObjectStore


@dataclass(frozen=True)
class Candidate:
    """An architecture's newest report, and why it may not win; ``None`` if it may."""

    architecture: str
    record: ReportRecord
    report: Report
    refused: str | None

    @property
    def validation_auc(self) -> float | None:
        return self.report.performance.validation["roc_auc"].value


def films_among(store: ObjectStore, names: Iterable[str]) -> list[str]:
    """The cohorts that hold prepared images of patients, and not phantoms."""
    manifests = (open_manifest(store, name) for name in sorted(names))
    return [item.cohort for item in manifests if not item.phantoms and any(row.stages for row in item.rows)]


def find_candidates(store: ObjectStore, withdrawn: Mapping[str, str], films: Sequence[str]) -> list[Candidate]:
    """Each architecture's newest report, judged.

    Refused are reports about another training set than the current one (their validation figures cannot be compared),
    models that were rolled back (``withdrawn``, by training run), those that failed a gate or that a gate cannot
    decide, and models of phantoms where there are cohorts of ``films``.
    """
    records = existing_reports(store)
    dataset_digest = TrainingSetRecord.need(store).digest if records else ""
    found = []
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
        found.append(Candidate(name, record, report, refused))
    return found


def best_of(candidates: Iterable[Candidate]) -> Candidate | None:
    """The one with the highest validation ROC-AUC among those that may win."""
    may_win = {item.architecture: item for item in candidates if item.refused is None}
    name = choose_champion({name: item.validation_auc for name, item in may_win.items()})
    return may_win[name] if name is not None else None


def candidate_table(candidates: Iterable[Candidate]) -> TableMetadataValue:
    records = (
        {
            "architecture": item.architecture,
            "validation_roc_auc": item.validation_auc,
            "verdict": item.refused or "may win",
        }
        for item in candidates
    )
    return table(records, ("architecture", "validation_roc_auc", "verdict"))


def _report(store: ObjectStore, record: ReportRecord) -> Report:
    try:
        return read_report(store.read(f"{record.prefix}/report.json"))
    except InvalidReport as error:
        raise Failure(
            f"{record.prefix}/report.json was written by another version of this package: materialize "
            f"evaluation_report again ({error})",
            allow_retries=False,
        ) from error
