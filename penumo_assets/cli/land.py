"""``penumo land``: what its options mean, and what it says of the cohort that has landed."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.land import Landed, land_folder, land_layout
from penumo_assets.cohort.layouts import LAYOUTS
from penumo_assets.cohort.layouts.base import Options, Uncertain
from penumo_assets.cohort.settings import NewSettings
from penumo_assets.instance import open_instance
from penumo_assets.resources.profile import root_store


def land_cohort(
    cohort: str,
    folder: Path,
    layout: str | None,
    *,
    official_split: bool,
    labelled_only: bool,
    uncertain: str,
    patient: str,
    table: str,
    maps: Sequence[str],
    settings: NewSettings | None,
) -> Landed:
    """Land a folder as it lies, or by the layout of this name.

    Raises
    ------
    LandingError, StorageError
        As `land_folder` and `land_layout`; also for options that make no sense together.
    """
    columns, labels = _maps(maps)
    options = Options(Uncertain(uncertain), patient, table, columns, labels)
    if layout is None:
        if official_split or labelled_only or options != Options(Uncertain(uncertain)):
            raise LandingError("--official-split, --labelled-only, --patient, --table and --map need a --layout")
        with open_instance() as instance:
            return land_folder(root_store(), instance, cohort, folder, settings=settings, progress=True)
    chosen = LAYOUTS[layout]
    if official_split and not chosen.official:
        raise LandingError(f"{chosen.title} has no division into training and test of its own")
    with open_instance() as instance:
        return land_layout(
            root_store(),
            instance,
            cohort,
            folder,
            chosen,
            options,
            official_split=official_split,
            labelled_only=labelled_only,
            settings=settings,
            progress=True,
        )


def about(layout: str, official_split: bool) -> Iterator[str]:
    """What a layout takes for a label, a patient and a split."""
    chosen = LAYOUTS[layout]
    yield f"{chosen.title}:"
    yield from (f"  {theirs} -> {ours}" for theirs, ours in chosen.labels.items())
    yield f"  a patient is {chosen.patients}"
    if official_split:
        yield f"  the split is {chosen.official}; it counts where the training set is packed with dataset.split: column"


def _maps(maps: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """``patient_id=Patient`` names a column, ``label:Pneumonie=pneumonia`` a label."""
    columns, labels = {}, {}
    for each in maps:
        left, equals, right = each.partition("=")
        if not equals or not left.strip() or not right.strip():
            raise LandingError(f"--map {each} is neither OUR_COLUMN=THEIRS nor label:THEIRS=OURS")
        if left.startswith("label:"):
            labels[left.removeprefix("label:").strip()] = right.strip().lower()
        else:
            columns[left.strip()] = right.strip()
    return columns, labels
