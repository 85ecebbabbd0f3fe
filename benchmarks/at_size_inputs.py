"""Inputs of benchmarks/at_size.py: a root as it is after many cohorts were prepared, of which no film has a pixel."""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from dagster import AssetMaterialization, DagsterInstance

import penumo_assets.configs
from penumo_assets.assets.segmenter import current_segmenter
from penumo_assets.cohort.land import landing_event
from penumo_assets.cohort.landing import Landing, read_landing
from penumo_assets.cohort.plan import PlanSettings, PreparePlan, plan_cohort
from penumo_assets.cohort.publish import ManifestHead, dump_manifest, manifest_key, open_manifest
from penumo_assets.cohort.watch.arrivals import START, look
from penumo_assets.cohort.watch.sweep import launch
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import STAGE_ASSETS, STAGES, ManifestRow, StageOutput
from penumo_assets.jobs.prepare.work import key_fingerprint, key_from_environment, key_id
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import ObjectStore

SETTINGS = Path(penumo_assets.configs.__file__).parent / "dagster_embedded.yaml"
FIRST = "cohort-0000"
_MOMENT = 1_700_000_000_000_000_000  # of every landed file, in ns: equal cohorts have equal entity tags


def names_of(number: int) -> list[str]:
    return [f"cohort-{item:04d}" for item in range(number)]


def build(root: Path, number: int, images: int) -> None:
    """Landing, manifests and Dagster's records of ``number`` cohorts: one by the code that plans it, copies of it."""
    store = FileStore(root)
    names = names_of(number)
    for name in names:
        land(root, name, range(images))
    landing, plan = planned(store, FIRST)
    head = ManifestHead(schema="penumo/manifest/1", phantoms=False, key=key_fingerprint())
    head = head.model_copy(update={"settings": PrepareConfig.defaults().model_dump(mode="json")})
    manifest = dump_manifest(head, _made(plan))
    assert len(landing.files) == images
    for name in names:
        store.write(manifest_key(name), manifest.replace(FIRST.encode(), name.encode()))
    _record(root, store, names)


def land(root: Path, cohort: str, numbers: Iterable[int]) -> None:
    """Files of one byte, all links to one, with a labels.csv that has a row for each."""
    folder = root / "landing" / cohort / "images"
    folder.mkdir(parents=True, exist_ok=True)
    film = root / "landing" / cohort / ".film"
    film.write_bytes(b"0")
    os.utime(film, ns=(_MOMENT, _MOMENT))
    rows = []
    for item in numbers:
        os.link(film, folder / f"film-{item:05d}.png")
        rows.append(f"images/film-{item:05d}.png,P{item:05d},{('normal', 'pneumonia')[item % 2]}\n")
    table = folder.parent / "labels.csv"
    with table.open("a", encoding="utf-8") as file:
        file.writelines([] if file.tell() else ["file,patient_id,label\n"])
        file.writelines(rows)


def planned(store: ObjectStore, cohort: str) -> tuple[Landing, PreparePlan]:
    """What has landed, and what `prepare_cohort` plans of it."""
    config = PrepareConfig.defaults()
    landing = read_landing(store, cohort, config.labels, key_from_environment())
    settings = PlanSettings(config, current_segmenter(store).sha256, key_id(), STAGES, key_fingerprint())
    return landing, plan_cohort(landing, open_manifest(store, cohort).rows, settings)


def publish_change(store: ObjectStore, cohort: str) -> int:
    """Put into the manifest what its plan would compute; returns how many images that are."""
    manifest = open_manifest(store, cohort)
    _, plan = planned(store, cohort)
    made = [row.model_copy(deep=True) for row in _made(plan)]
    store.write(manifest_key(cohort), dump_manifest(manifest.head, [*plan.rows, *made]))
    return len(made)


def _made(plan: PreparePlan) -> Iterator[ManifestRow]:
    """The rows that a job would return for what is planned."""
    for item in plan.items:
        row = item.row
        row.patient_id = row.split_key = f"{FIRST}-{item.label_patient_id}"
        row.width = row.height = 2000
        row.format, row.mean_intensity, row.source_sha256 = "png", 0.5, "0" * 64
        for stage in STAGES:
            name = f"{row.patient_id}.npz" if stage == "npz" else f"{row.image_id}.png"
            key = f"{stage}/{FIRST}/0123456789ab/{name}"
            digest = item.fingerprints[stage]
            row.stages[stage] = StageOutput(key=key, sha256=digest, fingerprint=digest, facts={"width": 224})
        yield row


def _record(root: Path, store: ObjectStore, names: list[str]) -> None:
    """Register the cohorts and what was made of them, as runs of the application would."""
    home = root / "dagster"
    home.mkdir()
    shutil.copy(SETTINGS, home / "dagster.yaml")
    with DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions(str(cohorts.name), names)
        arrived = look(store.list_objects("landing"), START, lambda: False).arrivals
        for arrival in arrived:
            instance.report_runless_asset_event(landing_event(launch(arrival, 0)))
            for asset in STAGE_ASSETS:
                event = AssetMaterialization(asset, partition=arrival.cohort, tags={"dagster/data_version": "1"})
                instance.report_runless_asset_event(event)
