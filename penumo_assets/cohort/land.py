"""Put a folder of images into landing, as a hospital's transfer would."""

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dagster import AssetMaterialization, DagsterInstance
from tqdm import tqdm

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.names import COMPLETE_MARKER, is_hidden
from penumo_assets.cohort.watch.arrivals import LANDING, START, look
from penumo_assets.cohort.watch.sweep import Launch, launch
from penumo_assets.imaging.deidentify import is_safe_id
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.object_store import ObjectStore, is_key, printable


@dataclass(frozen=True)
class Landed:
    """How many files were landed, and the names of those that were not, because they are no plain files or have names
    that no object can have."""

    files: int
    left_out: tuple[str, ...] = ()


DATA_VERSION = "dagster/data_version"  # how an event of an asset that is made elsewhere tells its version


def land_folder(
    store: ObjectStore, instance: DagsterInstance, cohort: str, folder: Path, *, progress: bool = False
) -> Landed:
    """Copy every file below ``folder`` to ``landing/{cohort}/`` and register the cohort.

    Landing the same folder again replaces what changed. Hidden files are left out; so are links, pipes and devices, and
    names that cannot be a key's, but by name. The marker ``_COMPLETE`` is written last.

    Raises
    ------
    LandingError
        If the cohort's name cannot be part of a key, or the folder holds no file.
    """
    if not is_safe_id(cohort):
        raise LandingError(f"{cohort!r} is not a valid cohort name: use A-Z a-z 0-9 . _ - and start with none of . -")
    files, left_out = _files(folder)
    if not files:
        raise LandingError(f"{folder.name} holds no files to land")
    prefix = f"{LANDING}/{cohort}"
    present = {info.key: info.size for info in store.list_objects(prefix)}

    def land(path: Path) -> None:
        key = f"{prefix}/{path.relative_to(folder).as_posix()}"
        if present.get(key) != path.stat().st_size or store.read(key) != path.read_bytes():
            store.upload(path, key)

    with ThreadPoolExecutor(store.workers) as pool:
        landed = pool.map(land, files)
        for _ in tqdm(landed, f"landing {cohort}", len(files), unit="file", disable=None if progress else True):
            pass
    store.write(f"{prefix}/{COMPLETE_MARKER}", b"")
    instance.add_dynamic_partitions(str(cohorts.name), [cohort])
    (arrival,) = look(store.list_objects(prefix), START, lambda: False).arrivals
    instance.report_runless_asset_event(landing_event(launch(arrival, 0)))
    return Landed(len(files), left_out)


def landing_event(item: Launch) -> AssetMaterialization:
    """Landing's materialization: a cohort lies there as ``item`` says."""
    return AssetMaterialization(
        LANDING, partition=item.cohort, metadata={"images": item.images}, tags={DATA_VERSION: item.digest}
    )


def _files(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The files to land, and the names of what cannot be landed."""
    files, left_out = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) or is_hidden(name):
            continue
        if stat.S_ISREG(mode) and is_key(name):
            files.append(path)
        else:
            left_out.append(printable(name))
    return files, tuple(left_out)
