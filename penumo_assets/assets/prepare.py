"""From landed images to NPZ tensors: four assets, one job, one pass over each cohort.

Enters: `landing` and `lung_segmenter`. Leaves: `raw_images`, `lung_masks`, `preprocessed_images`, `npz_tensors`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetSpec,
    DataVersion,
    Failure,
    MaterializeResult,
    multi_asset,
)
from pydantic import Field

from penumo_assets.assets.pages import listed, reason_table, reject_counts, reject_table, stage_preview, table
from penumo_assets.assets.segmenter import current_segmenter
from penumo_assets.assets.shared import (
    IMAGING,
    OWNERS,
    PROCESSING_POOL,
    given,
    launchpad_config,
    refusals,
    run_job,
)
from penumo_assets.automation import SETTLED_COHORT
from penumo_assets.cohort.claim import claimed
from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.plan import PlanSettings, PreparePlan, are_phantoms, plan_cohort
from penumo_assets.cohort.publish import (
    TRIES,
    Manifest,
    Publication,
    manifest_key,
    open_manifest,
    overtaken,
    plan_publication,
    publish,
)
from penumo_assets.cohort.retire import refuse_retired
from penumo_assets.cohort.settings import settings_in_force
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.identity import doubts, label_counts
from penumo_assets.jobs.manifest import STAGE_TABLE, STAGES, ManifestRow, stage_version
from penumo_assets.jobs.prepare.rows import merged
from penumo_assets.jobs.prepare.work import (
    DEMO_KEY,
    KEY_VARIABLE,
    dump_work,
    key_fingerprint,
    key_from_environment,
    key_id,
)
from penumo_assets.jobs.quality import identity_counts
from penumo_assets.partitions import cohorts
from penumo_assets.records import SegmenterRecord
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobInput, JobResult, JobSpec
from penumo_assets.resources.storage.object_store import ObjectChanged, ObjectMissing, ObjectStore, StorageError
from penumo_assets.resources.storage.root import Storage

PrepareLaunchpad: Any = launchpad_config(PrepareConfig)


class PrepareCohortConfig(PrepareLaunchpad):
    """How a cohort is prepared, and what a launch may do once."""

    rekey: bool = Field(
        default=False,
        description="Prepare with another PENUMO_DEID_KEY than before: every patient and image gets another id.",
    )


@multi_asset(
    name="prepare_cohort",
    specs=[
        AssetSpec(
            stage.asset,
            deps=stage.deps,
            description=stage.description,
            group_name=IMAGING,
            owners=OWNERS,
            kinds=set(stage.kinds),
            code_version=stage.version,
            skippable=False,
            automation_condition=SETTLED_COHORT,
        )
        for stage in STAGE_TABLE.values()
    ],
    can_subset=True,
    partitions_def=cohorts,
    # No backfill policy, which means a run per cohort: see penumo_assets.automation.
    pool=PROCESSING_POOL,
)
def prepare_cohort(
    context: AssetExecutionContext,
    config: PrepareCohortConfig,
    storage: Storage,
    jobs: JobRunner,
) -> Iterator[MaterializeResult]:
    """Compute what changed in one cohort, publish it, and say what became of every file."""
    cohort, store = context.partition_key, storage.store
    stages = tuple(stage for stage in STAGES if AssetKey(STAGE_TABLE[stage].asset) in context.selected_asset_keys)
    tries, once, rekey = TRIES, given(context, config), config.rekey
    with claimed(store, cohort, context.log.info):
        while True:
            base = open_manifest(store, cohort)
            try:
                done = _bring_up_to_date(context, store, jobs, base, once, stages, rekey)
                break
            except (StorageError, Failure):
                tries -= 1
                if not tries or not overtaken(store, {cohort: base.version}, context.log.info):
                    raise
    _require_usable(cohort, done.publication.rows)
    for stage in stages:
        yield MaterializeResult(
            asset_key=STAGE_TABLE[stage].asset,
            metadata=_metadata(store, cohort, done, stage),
            data_version=DataVersion(stage_version(done.publication.rows, stage)),
        )


@dataclass(frozen=True)
class Done:
    """What a materialization planned, published, and had computed by a job; ``settings`` in words."""

    settings: str
    plan: PreparePlan
    publication: Publication
    result: JobResult | None


def _bring_up_to_date(
    context: AssetExecutionContext,
    store: ObjectStore,
    jobs: JobRunner,
    base: Manifest,
    once: Mapping[str, Any],
    stages: tuple[str, ...],
    rekey: bool,
) -> Done:
    """Compute and publish what differs between a cohort's landing and its manifest."""
    segmenter = current_segmenter(store)
    with refusals():
        refuse_retired(store, base.cohort)
        chosen = settings_in_force(store, base.cohort, once)
        config = chosen.config
        settings = PlanSettings(config, segmenter.sha256, key_id(), stages, key_fingerprint())
        key = key_from_environment()
        if not rekey:
            _require_same_key(base)
        landing = read_landing(store, base.cohort, config.labels, key)
        if not are_phantoms(landing) and key == DEMO_KEY.encode():
            raise LandingError(
                f"cohort {base.cohort!r} holds films, and {KEY_VARIABLE} is the demo's, which everybody knows: set a "
                "secret of your own"
            )
        plan = plan_cohort(landing, base.rows, settings)
    described = chosen.described(base.head.settings, stages)
    context.log.info(f"settings: {described}")
    context.log.info(f"{len(landing.files)} files landed, {len(plan.items)} to compute, {len(plan.removed)} gone")
    result = run_job(context, jobs, _prepare_spec(plan, config, base.cohort, segmenter)) if plan.items else None
    publication = plan_publication(landing, plan, settings, base, _computed_rows(store, plan, result), result)
    try:
        publish(store, base, publication)
    except (ObjectChanged, ObjectMissing):
        if result:
            jobs.discard(result.job_name)  # another plan follows, and with it another job
        raise
    if result:
        jobs.discard(result.job_name)
    elif base.head.job:  # the run that published may have ended before it had removed its job's outputs
        jobs.discard(base.head.job)
    return Done(described, plan, publication, result)


def _require_same_key(base: Manifest) -> None:
    """Refuse to give what was prepared other ids, unless somebody asks for that."""
    if base.other_key and any(row.stages for row in base.rows):
        raise LandingError(
            f"cohort {base.cohort!r} was prepared {base.other_key}: set it as it was, or launch once with rekey: true, "
            "which computes the cohort anew and gives every patient and image another id"
        )


def _prepare_spec(plan: PreparePlan, config: PrepareConfig, cohort: str, segmenter: SegmenterRecord) -> JobSpec:
    documents = {"config.json": config.model_dump_json().encode(), "work.jsonl": dump_work(plan.items)}
    return JobSpec(
        kind="processing",
        program="prepare",
        asset="prepare",
        partition=cohort,
        inputs=_inputs(plan, cohort, segmenter),
        documents={"work": documents},
        outputs=(*STAGES, "rows"),
        result_output="rows",
        keeps=True,
        secrets=(KEY_VARIABLE,),
        digest_key=key_id(),
    )


def _inputs(plan: PreparePlan, cohort: str, segmenter: SegmenterRecord) -> dict[str, JobInput]:
    """Exactly the objects that the planned stages read."""
    landed = [
        [item.landed] * ("raw" in item.compute) + list(item.truths) * ("masks" in item.compute) for item in plan.items
    ]
    inputs = {"landing": JobInput.of_items(f"landing/{cohort}", landed)}
    for stage in ("raw", "masks", "preprocessed"):
        stored = [[item.row.stages[stage].key] if stage in item.row.stages else [] for item in plan.items]
        names = [[key.removeprefix(f"{stage}/") for key in keys] for keys in stored]
        inputs[stage] = JobInput.of_items(stage, names)
    if segmenter.prefix:
        inputs["weights"] = JobInput(segmenter.prefix, (segmenter.name,))
    return {name: item for name, item in inputs.items() if item.names}


def _computed_rows(store: ObjectStore, plan: PreparePlan, result: JobResult | None) -> list[ManifestRow]:
    """The rows the job wrote: one for each planned image, or the cohort would silently lose some."""
    if result is None:
        return []
    rows = merged((name, store.read(result.key("rows", name))) for name in result.outputs["rows"])
    if sorted(rows) != sorted(item.row.source for item in plan.items):
        raise Failure(f"job {result.job_name} returned {len(rows)} rows for {len(plan.items)} images")
    return list(rows.values())


def _require_usable(cohort: str, rows: Sequence[ManifestRow]) -> None:
    if not any(row.status == "accepted" for row in rows):
        counts = ", ".join(f"{code}: {count}" for code, count in reject_counts(rows).items())
        raise Failure(
            f"cohort {cohort!r} has no usable image: {len(rows)} rejected ({counts})",
            metadata={"rejected": reject_table(rows)},
            allow_retries=False,
        )


def _facts_of_films(rows: Sequence[ManifestRow]) -> dict[str, Any]:
    """What a page says of a cohort's films: labels, and doubts about whose they are."""
    found = doubts(rows)
    return {
        **label_counts(rows),
        **identity_counts(rows),
        **({"identity_doubts": table(found, ("note", "meaning", "films"))} if found else {}),
    }


def _metadata(store: ObjectStore, cohort: str, done: Done, stage: str) -> dict[str, Any]:
    rows, plan, result = done.publication.rows, done.plan, done.result
    mine = [row for row in rows if stage in row.stages]
    # What a later stage refuses is that stage's: so images and rejected add up to the files on every page.
    reached = ("landing", *STAGES[: STAGES.index(stage) + 1])
    rejected = [row for row in rows if row.status == "rejected" and row.stage in reached]
    metadata: dict[str, Any] = {
        "preview": stage_preview(store, mine, stage),
        "settings": done.settings,
        "files": len(rows),
        "dagster/row_count": len(mine),
        "rejected": len(rejected),
        "rejected_by_reason": reason_table(rejected),
        "rejected_files": reject_table(rejected),
        "computed": sum(stage in item.compute for item in plan.items),
        "removed": len(plan.removed),
        **(_facts_of_films(rows) if stage == "raw" else {}),
        "landed_megabytes": round(sum(row.source_bytes for row in rows) / 1e6, 3),
        "location": store.location(manifest_key(cohort)),
    }
    if stage == "masks":
        dices = [row.stages["masks"].facts["dice"] for row in mine if "dice" in row.stages["masks"].facts]
        metadata |= {"dice_mean": round(sum(dices) / len(dices), 4), "dice_images": len(dices)} if dices else {}
        left_out = Counter(note for row in rows for note in row.notes if note.startswith("mask:"))
        metadata |= {"truths_left_out": listed(f"{note}: {count}" for note, count in left_out.most_common())}
    if result:
        stage_seconds = result.values["stage_seconds"]
        metadata |= {"stage_seconds": stage_seconds[stage] + (stage_seconds["segment"] if stage == "masks" else 0)}
        metadata |= result.metadata
    return metadata
