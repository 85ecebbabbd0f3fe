"""Put a folder of images into landing, as a hospital's transfer would: as it lies, or by a data set's layout."""

import csv
import io
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dagster import AssetMaterialization, DagsterInstance
from tqdm import tqdm

from penumo_assets.cohort.census import Census, count
from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.labels import COLUMNS, Label, parse_labels
from penumo_assets.cohort.layouts.base import NO_FILE, NO_ROW, Film, Folder, Layout, Options
from penumo_assets.cohort.names import COMPLETE_MARKER, LABELS_FILE, is_hidden, is_image, is_labels, require_cohort_name
from penumo_assets.cohort.retire import refuse_retired
from penumo_assets.cohort.settings import NewSettings
from penumo_assets.cohort.table import MAX_BYTES
from penumo_assets.cohort.truths import mask_names
from penumo_assets.cohort.watch.arrivals import LANDING, START, look
from penumo_assets.cohort.watch.sweep import Launch, launch
from penumo_assets.configs.prepare import LabelsConfig
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.object_store import ObjectStore, is_key, printable

DATA_VERSION = "dagster/data_version"  # how an event of an asset that is made elsewhere tells its version
OTHER_FINDING = "another finding, and only labelled films were asked for"
TWICE = "the table names its file more than once"
_WORKBOOKS = frozenset({"labels.xlsx", "labels.xls", "labels.ods", "labels.numbers"})
_ANY_LABEL = LabelsConfig.parse({"classes": [], "file_names": "keep"})


@dataclass(frozen=True)
class Landed:
    """How many files were landed; the names of those that were not, because they are no plain files or have names that
    no object can have; and what the cohort holds."""

    files: int
    left_out: tuple[str, ...]
    census: Census


def land_folder(
    store: ObjectStore,
    instance: DagsterInstance,
    cohort: str,
    folder: Path,
    *,
    settings: NewSettings | None = None,
    progress: bool = False,
) -> Landed:
    """Copy every file below ``folder`` to ``landing/{cohort}/`` and register the cohort; its ``settings`` come first.

    Landing the same folder again replaces what changed. Hidden files are left out; so are links, pipes and devices, and
    names that cannot be a key's, but by name. The marker ``_COMPLETE`` is written last.

    Raises
    ------
    LandingError
        Before anything is copied: if the cohort's name cannot be part of a key, the folder holds no file, or its
        labels.csv cannot be read or names none of the cohort's files.
    """
    files, left_out = _files(folder, cohort)
    refuse_retired(store, cohort)
    if not files:
        raise LandingError(f"{folder.name} holds no files to land")
    present = _present(store, cohort)
    names = present.keys() | files.keys()
    tables = [name for name in files if is_labels(name)] or [name for name in names if is_labels(name)]
    if len(tables) > 1:
        raise LandingError(f"{folder.name} holds {len(tables)} tables of labels, {', '.join(tables)}: keep one")
    if not tables and (other := [name for name in files if name.lower() in _WORKBOOKS]):
        raise LandingError(f"{other[0]} cannot be read: save it as {LABELS_FILE} (CSV UTF-8)")
    labels: Collection[Label] = ()
    if tables:
        (table,) = tables
        data = files[table].read_bytes() if table in files else store.read(f"{LANDING}/{cohort}/{table}", MAX_BYTES)
        labels = parse_labels(data, cohort, _ANY_LABEL, None).values()
    census = count(names, labels)
    if labels and census.absent == len(labels):
        raise LandingError(f"{tables[0]} names none of the films in {folder.name}: file is the path below that folder")
    _copy(store, instance, cohort, files, {}, settings, progress)
    return Landed(len(files), left_out, census)


def land_layout(
    store: ObjectStore,
    instance: DagsterInstance,
    cohort: str,
    folder: Path,
    layout: Layout,
    options: Options,
    *,
    official_split: bool = False,
    labelled_only: bool = False,
    settings: NewSettings | None = None,
    progress: bool = False,
) -> Landed:
    """Copy the films that a data set's own tables name, and its masks, with a labels.csv made from those tables.

    Raises
    ------
    LandingError
        Before anything is copied: as `land_folder`, and if the tables are not there or cannot be read, or no film is
        left to land.
    """
    files, left_out = _files(folder, cohort)
    refuse_retired(store, cohort)
    shown = tqdm(
        layout.read(Folder(files, lambda name: files[name].read_bytes()), options),
        f"reading {layout.name}",
        unit="film",
        disable=None if progress else True,
    )
    films, reasons, named = _chosen(shown, labelled_only)
    masks = mask_names(files)
    reasons[NO_ROW] = sum(is_image(name) and name not in named and name not in masks for name in files)
    reasons = +reasons
    if not films:
        why = ", ".join(f"{reason}: {number}" for reason, number in reasons.items())
        raise LandingError(f"{folder.name} holds no film to land as {layout.name} ({why or 'its tables are empty'})")
    chosen = {name: path for name, path in files.items() if name in films or name in masks}
    table = _table(films.values(), official_split)
    labels = parse_labels(table, cohort, _ANY_LABEL, None).values()
    _copy(store, instance, cohort, chosen, {LABELS_FILE: table}, settings, progress)
    return Landed(len(chosen) + 1, left_out, count(chosen, labels, reasons))


def landing_event(item: Launch) -> AssetMaterialization:
    """Landing's materialization: a cohort lies there as ``item`` says."""
    return AssetMaterialization(
        LANDING, partition=item.cohort, metadata={"images": item.images}, tags={DATA_VERSION: item.digest}
    )


def _chosen(shown: Iterable[Film], labelled_only: bool) -> tuple[dict[str, Film], Counter[str], set[str]]:
    """The films to land by file, how many rows are left out for which reason, and every file that a row names."""
    films: dict[str, Film] = {}
    reasons: Counter[str] = Counter()
    named: set[str] = set()
    for film in shown:
        left_out = film.left_out or (NO_FILE if not film.file else TWICE if film.file in named else "")
        left_out = left_out or (OTHER_FINDING if labelled_only and not film.label else "")
        named.add(film.file)
        if left_out:
            reasons[left_out] += 1
        else:
            films[film.file] = film
    return films, reasons, named


def _table(films: Collection[Film], official_split: bool) -> bytes:
    """The labels.csv of the films, with a column ``split`` where it was asked for."""
    extras = sorted({name for film in films for name in film.extra})
    columns = [name for name in COLUMNS if name != "split" or official_split]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "finding", *extras], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**vars(film), **film.extra} for film in films)
    return text.getvalue().encode()


def _present(store: ObjectStore, cohort: str) -> dict[str, int]:
    """What lies in the cohort's landing folder: names and sizes."""
    prefix = f"{LANDING}/{cohort}"
    return {info.key[len(prefix) + 1 :]: info.size for info in store.list_objects(prefix)}


def _copy(
    store: ObjectStore,
    instance: DagsterInstance,
    cohort: str,
    files: Mapping[str, Path],
    documents: Mapping[str, bytes],
    settings: NewSettings | None,
    progress: bool,
) -> None:
    """Write what is new or changed into landing, the marker last, and register the cohort.

    Its settings before all: a sensor may run it as soon as there is a film.
    """
    if settings:
        settings.write(store)
    prefix, present = f"{LANDING}/{cohort}", _present(store, cohort)

    def land(name: str) -> None:
        key, path = f"{prefix}/{name}", files[name]
        if present.get(name) != path.stat().st_size or store.read(key) != path.read_bytes():
            store.upload(path, key)

    with ThreadPoolExecutor(store.workers) as pool:
        landed = pool.map(land, files)
        for _ in tqdm(landed, f"landing {cohort}", len(files), unit="file", disable=None if progress else True):
            pass
    for name, data in documents.items():
        store.write(f"{prefix}/{name}", data)
    store.write(f"{prefix}/{COMPLETE_MARKER}", b"")
    instance.add_dynamic_partitions(str(cohorts.name), [cohort])
    (arrival,) = look(store.list_objects(prefix), START, lambda: False).arrivals
    instance.report_runless_asset_event(landing_event(launch(arrival, 0)))


def _files(folder: Path, cohort: str) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The files that can be landed by name, and the names of what cannot.

    Raises
    ------
    LandingError
        If the cohort's name cannot be part of a key.
    """
    require_cohort_name(cohort)
    files, left_out = {}, []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) or is_hidden(name):
            continue
        if stat.S_ISREG(mode) and is_key(name):
            files[name] = path
        else:
            left_out.append(printable(name))
    return files, tuple(left_out)
