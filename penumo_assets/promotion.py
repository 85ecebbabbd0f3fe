"""Which model is in use: promotion, rollback, and the records that everyone reads.

``models/versions/{version}.json`` describes a registered version and never changes but for its approval;
``models/champion.json`` is the record of the champion, with the version before it. MLflow's aliases `champion` and
`previous` say the same: both are written here and nowhere else, alias first, and `disagreement` compares them.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penumo_assets.records import ChampionRecord, DecisionRule, ModelRecord, ServingArchive, VersionRecord
from penumo_assets.resources.model_package import Approval, ModelPackages
from penumo_assets.resources.serving import ARCHIVE_NAME, write_serving_archive
from penumo_assets.resources.storage.object_store import ObjectChanged, ObjectMissing, ObjectStore
from penumo_assets.resources.tracking import CHAMPION, PREVIOUS, Tracking

NOT_PROMOTED = "not promoted:"  # how the history of a challenger begins


class NoChampion(RuntimeError):
    """No such model; the message says what to do."""


@dataclass(frozen=True)
class Winner:
    """What is to become the champion.

    ``model`` is the training's record, ``report`` the prefix of its evaluation, ``rule`` the decision rule that the
    report chose on validation (threshold, calibration, source), ``prepare`` how the training images were prepared,
    ``promoted`` how it fared against the champion, or that somebody forced it, ``description`` what MLflow shows of it.
    ``segmenter`` is ``(prefix, name)`` of its weights where they are not the bundled ones.
    """

    architecture: str
    model: ModelRecord
    report: str
    rule: DecisionRule
    prepare: Mapping[str, Any]
    segmenter: tuple[str, str] | None
    approval: Approval
    phantoms: bool
    promoted: str = ""
    description: str = ""


def promote(
    store: ObjectStore, tracking: Tracking, packages: ModelPackages, winner: Winner, run_id: str
) -> ChampionRecord:
    """Register the winner, store what serves it, and make it the champion; the new record.

    ``run_id`` is the Dagster run that chose it. Safe to repeat: the same weights and rule keep their version number.
    Nothing moves before everything that the new champion needs is stored.

    Raises
    ------
    NoChampion
        If no MLflow run holds the winner, so that it cannot be registered.
    """
    return _point(store, tracking, _register(store, tracking, packages, winner, run_id))


def challenge(
    store: ObjectStore, tracking: Tracking, packages: ModelPackages, winner: Winner, run_id: str
) -> VersionRecord:
    """Register a model that stays out of use, with the alias `challenger`; its record. Otherwise as `promote`."""
    record = _register(store, tracking, packages, replace(winner, approval=Approval.pending), run_id)
    tracking.challenge(record.version)
    return record


def _register(
    store: ObjectStore, tracking: Tracking, packages: ModelPackages, winner: Winner, run_id: str
) -> VersionRecord:
    """Register a model and store what serves it; the record of the version."""
    rule = json.dumps(winner.rule.model_dump(exclude={"source"}))
    model = winner.model
    if model.mlflow_run_id is None:
        raise NoChampion(f"{model.job_name} was trained without MLflow, which registers models: train it again")
    tags = {
        "architecture": winner.architecture,
        "dataset_digest": model.dataset_digest,
        "dagster_run_id": run_id,
        "report": winner.report,
    }
    version = tracking.register(model.mlflow_run_id, model.values["mlflow_model_uri"], rule, tags, winner.description)
    prefix = f"models/versions/{version}"
    origin = {
        "version": version,
        "architecture": winner.architecture,
        "training_job": model.job_name,
        "dataset_digest": model.dataset_digest,
        "phantoms": winner.phantoms,
    }
    _store_archive(store, f"{prefix}/{ARCHIVE_NAME}", winner, origin)
    before, is_challenger = VersionRecord.find(store, version), winner.promoted.startswith(NOT_PROMOTED)
    was_champion = before is not None and not before.promoted.startswith(NOT_PROMOTED)
    approval = before.approval if before and is_challenger else winner.approval.value
    if before and before.package and not was_champion and not is_challenger:
        packages.set_approval(before.package, winner.approval, winner.promoted)
    package = (before and before.package) or packages.register(
        version, store.uri(f"{prefix}/{ARCHIVE_NAME}"), winner.approval, {**tags, "registry_version": version}
    )
    record = VersionRecord(
        **origin,
        model=model,
        serving=ServingArchive(prefix=prefix, name=ARCHIVE_NAME),
        report=winner.report,
        rule=winner.rule,
        package=package,
        approval=approval,
        promoted=before.promoted if before and was_champion and is_challenger else winner.promoted,
    )
    record.write(store, version)
    return record


def rollback(
    store: ObjectStore, tracking: Tracking, packages: ModelPackages, to: str | None = None, reason: str = ""
) -> tuple[ChampionRecord, str]:
    """Make ``to``, by default the previous champion, the champion again; its record and the version that it replaces.

    The version that is left becomes `previous` and is marked as withdrawn, so that `champion_model` does not choose
    it again by itself; rolling back to it takes the mark away. Safe to repeat after it was killed.

    Raises
    ------
    NoChampion
        If there is nothing to roll back, or no such version.
    """
    champion, held = read_champion(store), tracking.version_with(CHAMPION)
    recorded, before = champion.version, tracking.version_with(PREVIOUS)
    # A rollback that was killed between alias and record is finished, not taken back.
    halfway = (held, before) == (champion.previous, recorded)
    wanted = to or (held if halfway else before)
    if wanted is None:
        raise NoChampion(f"version {recorded} is the only champion there has been: nothing to roll back to")
    if wanted == recorded == held:
        raise NoChampion(f"version {wanted} is the champion already")
    # Where the alias was moved by hand the two differ: what is left is whichever is not wanted.
    left = recorded if held in (None, wanted) else held
    record = read_version(store, wanted)
    why = reason or f"rolled back to version {wanted}"
    tracking.reinstate(wanted)
    tracking.withdraw(left, why)
    if record.package:
        packages.set_approval(record.package, Approval(record.approval), "in use again")
    if (gone := VersionRecord.find(store, left)) and gone.package:
        packages.set_approval(gone.package, Approval.rejected, why)
    # Last of all: what was killed before it has not moved, and does all of it again when it is told to again.
    return _point(store, tracking, record), left


def read_champion(store: ObjectStore) -> ChampionRecord:
    """The champion's record.

    Raises
    ------
    NoChampion
        If none has been chosen yet.
    """
    try:
        return ChampionRecord.read(store)
    except ObjectMissing as error:
        raise NoChampion("there is no champion: materialize champion_model first (or run `penumo demo`)") from error


def read_version(store: ObjectStore, wanted: str) -> VersionRecord:
    """The record of ``champion``, ``previous`` or a version number.

    Raises
    ------
    NoChampion
        If there is no such version.
    """
    champion = read_champion(store)
    if wanted == CHAMPION:
        return champion
    version = champion.previous if wanted == PREVIOUS else wanted
    if version is None:
        raise NoChampion(f"version {champion.version} is the first champion: there is no previous one")
    try:
        return VersionRecord.read(store, version)
    except ObjectMissing as error:
        raise NoChampion(
            f"version {version} has never been a champion: there is no {VersionRecord.key(version)}"
        ) from error


def disagreement(store: ObjectStore, tracking: Tracking) -> str | None:
    """Where MLflow's aliases and the record differ, and the remedy; None where they agree."""
    record = read_champion(store)
    for alias, recorded in ((CHAMPION, record.version), (PREVIOUS, record.previous)):
        held = tracking.version_with(alias)
        if held != recorded:
            return (
                f"MLflow's alias {alias} is at version {held}, {ChampionRecord.key()} says {recorded}: aliases were "
                "moved by hand. `penumo rollback --to VERSION` moves both; materializing champion_model chooses anew"
            )
    return None


def _point(store: ObjectStore, tracking: Tracking, record: VersionRecord) -> ChampionRecord:
    """Move the aliases, then the record; again if another promotion has moved the record meanwhile.

    Whoever replaces the record last has read it after all the others had, and moved the aliases after that: so in the
    end both name the same version.
    """
    while True:
        held = _version_of_record(store)
        values = dict(record) | {"previous": tracking.point(record.version)}
        moved = ChampionRecord(**values)
        try:
            store.swap(moved.key(), moved.dump(), held)
        except ObjectChanged:
            continue
        return moved


def _version_of_record(store: ObjectStore) -> str | None:
    try:
        return store.read_version(ChampionRecord.key())[1]
    except ObjectMissing:
        return None


def _store_archive(store: ObjectStore, key: str, winner: Winner, origin: Mapping[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store.download(f"{winner.model.prefix}/{winner.model.name}", folder / "trained.tar.gz")
        weights = None
        if winner.segmenter is not None:
            weights = folder / "lung_segmenter.safetensors"
            store.download("/".join(winner.segmenter), weights)
        rule = json.dumps(winner.rule.model_dump(), indent=2, sort_keys=True).encode()
        prepare = json.dumps(dict(winner.prepare), indent=2, sort_keys=True).encode()  # JSON is YAML too
        write_serving_archive(folder / "trained.tar.gz", folder / ARCHIVE_NAME, rule, prepare, origin, weights)
        store.upload(folder / ARCHIVE_NAME, key)
