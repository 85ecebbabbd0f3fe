"""The end of the demo's story: what was made, how good it is, what is not green and why, and what to do next."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any
from urllib.parse import unquote, urlparse

from dagster._core.execution.execution_result import ExecutionResult

from penumo_assets.assets.evaluation import existing_reports
from penumo_assets.cli.console import reason
from penumo_assets.cli.environment import program, shown
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.resources.storage.object_store import ObjectStore

NOTICE = (
    "The demo runs on PHANTOMS: drawn pictures that look like chest X-rays. Its figures show that the pipeline works,\n"
    "and nothing about any patient or any real model. Not a medical device."
)
METRICS = {
    "test_roc_auc": "ROC-AUC",
    "test_pr_auc": "PR-AUC",
    "test_accuracy": "accuracy",
    "test_recall": "sensitivity",
    "test_specificity": "specificity",
    "test_f1": "F1",
    "threshold": "threshold",
}
Say = Callable[[str], None]
Results = Sequence[tuple[str | None, ExecutionResult]]


def print_summary(say: Say, store: ObjectStore, results: Results) -> None:
    """The table of assets, the metrics, the checks, the rejected files, and the next commands."""
    metrics = chain(_metrics(store), _rivals(results))
    for part in (_assets(results), metrics, _checks(results), _rejected(store, results), _next(store, results)):
        say("")
        for line in part:
            say(line)
    say("")
    say(NOTICE)


def _assets(results: Results) -> Iterator[str]:
    yield f"{'asset':<22}{'partition':<16}{'images':>8}{'rejected':>10}"
    for partition, name, values in _made(results):
        images = values.get("dagster/row_count", values.get("test_images", ""))
        yield f"{name:<22}{partition or '':<16}{images:>8}{values.get('rejected', ''):>10}".rstrip()


def _made(results: Results) -> Iterator[tuple[str | None, str, dict[str, Any]]]:
    """Partition, asset, and what stands on its page."""
    for partition, result in results:
        for event in result.get_asset_materialization_events():
            made = event.step_materialization_data.materialization
            yield partition, made.asset_key.to_user_string(), {key: item.value for key, item in made.metadata.items()}


def _rivals(results: Results) -> Iterator[str]:
    """Who is in use, and who was compared with it."""
    for _, name, values in _made(results):
        if name == "champion_model":
            why = values.get("stays_a_challenger")
            yield f"champion: version {values['model_version']} ({values['architecture']})"
            yield f"challenger: {values['challenger']}" + (f": {why}" if why else "")


def _metrics(store: ObjectStore) -> Iterator[str]:
    records = existing_reports(store)
    yield f"{'held-out phantoms':<22}" + "".join(f"{name:<26}" for name in records).rstrip()
    for metric, title in METRICS.items():
        yield f"{title:<22}" + "".join(f"{_estimate(item.values, metric):<26}" for item in records.values()).rstrip()
    for record in records.values():
        yield f"report: {_place(store, record.prefix + '/report.html')}"


def _estimate(values: dict[str, Any], metric: str) -> str:
    value, low, high = (values.get(f"{metric}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.2f} to {high:.2f})"


def _checks(results: Results) -> Iterator[str]:
    found = [check for _, result in results for check in result.get_asset_check_evaluations()]
    failed = [check for check in found if not check.passed]
    yield f"checks: {len(found) - len(failed)} passed, {len(failed)} did not" + (":" if failed else "")
    for check in failed:
        of = check.asset_key.to_user_string() + (f" of {check.partition}" if check.partition else "")
        yield f"  {check.check_name} on {of}: {reason(check)}"
    if any(check.check_name == "gate_beat_shortcuts" for check in failed):
        yield "  A gate that nobody asked for is never green. This one needs more test films than the demo draws."


def _rejected(store: ObjectStore, results: Results) -> Iterator[str]:
    cohorts = sorted({partition for partition, result in results if partition and result.job_def.name == "prepare"})
    rows = [(cohort, row) for cohort in cohorts for row in read_manifest(store, cohort) if row.status == "rejected"]
    yield f"rejected files: {len(rows)}, planted to show what happens to a bad file"
    for cohort, row in rows:
        yield f"  {cohort} {row.source}  {row.code}: {row.reason}"


def _next(store: ObjectStore, results: Results) -> Iterator[str]:
    cohort = next(partition for partition, result in results if partition and result.job_def.name == "predict")
    film = next(info.key for info in store.list_objects(f"landing/{cohort}/images") if "broken" not in info.key)
    penumo = f"{program('penumo')} --demo"
    commands = [(f"{penumo} dev", "these runs, pictures and checks in Dagster's UI")]
    if urlparse(store.uri(film)).scheme == "file":
        commands.append((f"{penumo} predict {shown(_place(store, film))}", "the champion's answer to one film"))
    commands.append((f"{penumo} rejected {cohort}", "which files the rejected ones are"))
    yield "next:"
    for command, what in commands:
        yield f"  {command}"
        yield f"      {what}"


def _place(store: ObjectStore, key: str) -> str:
    uri = urlparse(store.uri(key))
    return unquote(uri.path) if uri.scheme == "file" else uri.geturl()
