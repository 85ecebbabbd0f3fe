"""Checks of the training set: nobody on two sides, nothing twice, every class in every split."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dagster import AssetCheckResult, AssetCheckSeverity, Config, Failure, asset_check
from pydantic import Field

from penumo_assets.assets.dataset import read_indices
from penumo_assets.assets.pages import pair_sheet, rounded, table
from penumo_assets.cohort.training_items import CohortItems, ItemsRecord
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.records import TrainingSetRecord
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage

WAYS = ("decode", "segment", "enhance", "segmenter", "PENUMO_DEID_KEY")


class DuplicatesConfig(Config):
    """What counts as the same picture."""

    max_distance: int = Field(
        default=2, ge=0, le=16, description="Bits in which the perceptual hashes (64 bits) of two images may differ."
    )


class SamePreparationConfig(Config):
    """How many films may have been prepared otherwise than most."""

    max_share: float = Field(default=0.0, ge=0, le=1, description="Largest share of the labelled films.")


class ClassBalanceConfig(Config):
    """How rare a class may be."""

    min_share: float = Field(default=0.1, ge=0, le=1, description="Smallest share of a split's images.")


@asset_check(
    asset="training_set",
    blocking=True,
    description="No patient, and no image, stands in more than one split. Error: stops the run.",
)
def no_leakage(storage: Storage) -> AssetCheckResult:
    index = read_indices(storage.store, TrainingSetRecord.need(storage.store))
    patients = Counter(patient for frame in index.values() for patient in set(frame["patient_id"]))
    images = Counter(digest for frame in index.values() for digest in set(frame["sha256"].dropna()))
    shared = sorted(patient for patient, splits in patients.items() if splits > 1)
    copies = sorted(digest for digest, splits in images.items() if splits > 1)
    return AssetCheckResult(
        passed=not shared and not copies,
        severity=AssetCheckSeverity.ERROR,
        metadata={
            "patients": len(patients),
            "offending_patients": len(shared),
            "offending_images": len(copies),
            "offenders": table(
                [{"in_several_splits": "patient", "which": name} for name in shared]
                + [{"in_several_splits": "image", "which": f"SHA-256 {digest}"} for digest in copies],
                ("in_several_splits", "which"),
            ),
        },
    )


@asset_check(
    asset="training_set",
    description="No two patients share a picture: perceptual hashes at most `max_distance` bits apart (default 2), or "
    "equal pixels. A warning: a patient may have two ids, or a film may have been exported twice.",
)
def duplicates(config: DuplicatesConfig, storage: Storage) -> AssetCheckResult:
    from penumo_assets.jobs.pack.duplicates import duplicates_across_patients  # pandas, which definitions do without

    store = storage.store
    index = _whole_index(store)
    # An image id is unique in its cohort only; a tensor's file names both.
    found = duplicates_across_patients(index.assign(image_id=index["file"]), config.max_distance)
    shown = [(f"npz/{pair.image_a}", f"npz/{pair.image_b}") for pair in found.nearest]
    columns = ("image_a", "image_b", "split_a", "split_b", "distance", "identical")
    return AssetCheckResult(
        passed=not found.count,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "images": len(index),
            "pairs": found.count,
            "across_splits": found.across_splits,
            "offenders": table([pair.as_dict() for pair in found.nearest], columns),
            **({"pictures": pair_sheet(store, shown)} if shown else {}),
        },
    )


@asset_check(
    asset="training_set",
    blocking=True,
    description="The cohorts were prepared alike: same settings of decoding, segmentation and enhancement, same "
    "segmenter, same PENUMO_DEID_KEY, but for `max_share` of the films (default none). Error: stops the run. Other "
    "settings are shortcuts to the hospital; under another key a patient may stand on two sides of the split.",
)
def same_preparation(config: SamePreparationConfig, storage: Storage) -> AssetCheckResult:
    store = storage.store
    items = ItemsRecord.of(store, TrainingSetRecord.need(store)).cohorts
    if not items:
        raise Failure("an earlier version made this training set: materialize training_set again", allow_retries=False)
    films = {cohort: each.films for cohort, each in items.items()}
    ways = {cohort: _way(each) for cohort, each in items.items()}
    majority = Counter({tuple(way.values()): 0 for way in ways.values()})
    for cohort, way in ways.items():
        majority[tuple(way.values())] += films[cohort]
    usual = dict(zip(WAYS, majority.most_common(1)[0][0], strict=True)) if ways else {}
    others = {cohort: what for cohort, way in ways.items() if (what := _differing(way, usual))}
    share = sum(films[cohort] for cohort in others) / max(1, sum(films.values()))
    rows = [{"cohort": name, "films": films[name], "differs_in": ", ".join(what)} for name, what in others.items()]
    return AssetCheckResult(
        passed=share <= config.max_share,
        severity=AssetCheckSeverity.ERROR,
        metadata={
            "prepared_otherwise": rounded(share),
            "tolerated": f"{config.max_share:.0%}",
            "cohorts": table(rows, ("cohort", "films", "differs_in")),
        },
    )


def _differing(way: Mapping[str, str], usual: Mapping[str, str]) -> list[str]:
    return [name for name in WAYS if way[name] != usual[name] and "None" not in (way[name], usual[name])]


def _way(head: CohortItems) -> dict[str, str]:
    """How a cohort was prepared, each part as a text; ``None`` is what an earlier version did not record."""
    settings = PrepareConfig.parse(head.settings)
    parts = [part.model_dump_json() for part in (settings.decode, settings.segment, settings.enhance)]
    return dict(zip(WAYS, [*parts, str(head.segmenter), str(head.key)], strict=True))


def _whole_index(store: ObjectStore) -> Any:
    import pandas as pd

    frames = read_indices(store, TrainingSetRecord.need(store))
    return pd.concat([frame.assign(split=name.split("/")[0]) for name, frame in frames.items()], ignore_index=True)


@asset_check(
    asset="training_set",
    description="Every split holds every class, and each class at least `min_share` of its images (default 10 %). "
    "A warning: figures for a rare class are uncertain.",
)
def class_balance(config: ClassBalanceConfig, storage: Storage) -> AssetCheckResult:
    store = storage.store
    dataset = store.read_json(f"{TrainingSetRecord.need(store).prefix}/dataset.json")
    rows: list[dict[str, Any]] = []
    for name, split in dataset["splits"].items():
        for label in dataset["classes"]:
            images = split["counts"].get(label, 0)
            share = images / max(1, split["images"])
            too_rare = share < config.min_share
            rows.append({"split": name, "class": label, "images": images, "share": share, "too_rare": too_rare})
    rare = [f"{row['split']} {row['class']}" for row in rows if row["too_rare"]]
    return AssetCheckResult(
        passed=not rare,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "too_rare": ", ".join(rare) or "none",
            "tolerated": f"{config.min_share:.0%}",
            "shares": table(rows, ("split", "class", "images", "share", "too_rare")),
        },
    )
