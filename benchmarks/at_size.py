"""A million films in a thousand cohorts, of which one changes: what planning, listing, commands and pages take.

Nothing of it is computed: landed files of a byte, manifests and Dagster's records are made up (some 3 GB, 1.1 million
files). Every step is a process of its own. Seconds are of processor time, which neighbours disturb less; memory is the
peak beyond what the process had when the part began (Linux).

    python benchmarks/at_size.py                                      # 10, 100 and 1,000 cohorts of 1,000 images
    python benchmarks/at_size.py --sizes 1000 --pages                 # and the pages, in Chromium
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dagster import DagsterInstance, SensorResult, build_sensor_context

if not __package__:  # run as a file: its neighbours and the tests' helpers are found from the checkout
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.at_size_inputs import FIRST, build, land, planned, publish_change
from benchmarks.load import PAGES, chromium
from benchmarks.load_watch import AssetPage, visit
from penumo_assets.assets.dataset import pack_spec, trainable
from penumo_assets.cohort.retire import cohorts_in_use
from penumo_assets.cohort.training_items import ItemsRecord
from penumo_assets.configs.train import DatasetConfig
from penumo_assets.records import TrainingSetRecord
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets_tests.browser.site import start_command
from penumo_assets_tests.memory import peak_mib

CHECKOUT = Path(__file__).parents[1]
KEY = "a key that opens nothing"
CHANGED, NEW, PREFIX = "cohort-0003", "cohort-9999", "training_set/d"
BEYOND, LATE = 1_000_000, 10  # numbers of late films are none of a cohort's own
Step = Callable[[FileStore, DagsterInstance], Iterator[str]]
"""Does something, and says after each part of it, by yielding its name, that this is to be timed; '' is not."""


def listing(store: FileStore, instance: DagsterInstance) -> Iterator[str]:
    """The listing sensor: whole sweeps, all ticks of one together."""
    from penumo_assets.sensors.listing import landing_listing

    storage = Storage(root=store.root_uri)

    def sweep(cursor: str | None) -> tuple[str, list[str]]:
        launched: list[str] = []
        while True:
            context = build_sensor_context(instance=instance, cursor=cursor, resources={"storage": storage})
            result = landing_listing(context)
            assert isinstance(result, SensorResult)
            assert result.cursor is not None, result.skip_reason
            cursor = result.cursor
            launched += [str(request.partition_key) for request in result.run_requests or []]
            if not any(json.loads(cursor)["position"]):
                return cursor, launched

    cursor, _ = sweep(None)
    yield ""
    cursor, launched = sweep(cursor)
    assert not launched
    yield "listing sensor, nothing new"
    land(store.root, NEW, range(1000))
    yield ""
    _, launched = sweep(cursor)
    assert launched == [NEW]
    yield "listing sensor, one new cohort"


def plan(store: FileStore, instance: DagsterInstance) -> Iterator[str]:
    """A cohort's plan, as it was and after some late films."""
    _, found = planned(store, CHANGED)
    assert not found.items
    yield "plan of an unchanged cohort"
    land(store.root, CHANGED, range(BEYOND, BEYOND + LATE))
    yield ""
    _, found = planned(store, CHANGED)
    assert len(found.items) == LATE
    yield f"plan of a cohort with {LATE} late films"


def dataset(store: FileStore, instance: DagsterInstance) -> Iterator[str]:
    """Planning a training set: the first one, again, and after a cohort has changed."""
    settings = DatasetConfig.defaults()

    def planned_set(before: ItemsRecord) -> tuple[ItemsRecord, int]:
        found = trainable(store, cohorts_in_use(store, instance), settings, before)
        spec = pack_spec(store, found, settings, TrainingSetRecord(prefix=PREFIX, names=(), digest="d"), before)
        fresh = spec.inputs.get("npz")
        ItemsRecord(cohorts=found.items).write(store, PREFIX)
        return ItemsRecord.read(store, PREFIX), len(fresh.names) if fresh else 0

    made, fresh = planned_set(ItemsRecord())
    assert fresh == sum(each.films for each in made.cohorts.values())
    yield "training set, the first one"
    made, fresh = planned_set(made)
    assert fresh == 0
    yield "training set, nothing new"
    publish_change(store, CHANGED)
    yield ""
    made, fresh = planned_set(made)
    assert fresh == LATE
    yield f"training set, {LATE} films of a cohort new"


def commands(store: FileStore, instance: DagsterInstance) -> Iterator[str]:
    """What a person asks, without the start of the program."""
    from click.testing import CliRunner

    from penumo_assets.cli.main import main as penumo

    film = planned(store, FIRST)[1].rows[0]
    tensor = film.stages["npz"].key
    yield ""
    for words in (
        ["rejected", FIRST],
        ["settings", FIRST],
        ["lookup", tensor],
        ["lookup", film.patient_id or ""],
    ):
        answer = CliRunner().invoke(penumo, words)
        assert answer.exit_code == 0, answer.output
        yield f"penumo {words[0]} {'COHORT' if words[1] == FIRST else 'TENSOR' if words[1] == tensor else 'PATIENT'}"


STEPS: dict[str, Step] = {step.__name__: step for step in (plan, dataset, commands, listing)}


def environment(root: Path) -> dict[str, str]:
    home = {"PENUMO_ROOT": str(root), "DAGSTER_HOME": str(root / "dagster"), "PENUMO_SETTLE_SECONDS": "0"}
    return {**os.environ, **home, "PENUMO_DEID_KEY": KEY}


def pages(root: Path, cohort: str) -> None:
    """What the pages of an asset take that has all these partitions: their requests, sent again and again."""
    site = start_command(["dev"], root, environment(root))
    try:
        with chromium() as browser:
            page = browser.new_page(base_url=site.url)
            page.goto("/overview", wait_until="networkidle")  # the application itself is in the browser's cache now
            for path in PAGES[:-1]:  # no cohort has a run
                asset = AssetPage(site.url, visit(page, path.format(cohort=cohort))[0])
                for _ in range(20):
                    asset.open()
                print(f"{path}: {asset.report()}")
    finally:
        site.stop()


def measured(root: Path, step: str) -> list[tuple[str, float, float]]:
    """Name, seconds and MiB beyond the imports of each part of a step."""
    command = [sys.executable, "-m", "benchmarks.at_size", "--step", step, "--folder", str(root)]
    done = subprocess.run(command, env=environment(root), stdout=subprocess.PIPE, text=True, check=True, cwd=CHECKOUT)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def run_step(root: Path, step: str) -> None:
    store = FileStore(root)
    with DagsterInstance.from_config(str(root / "dagster")) as instance:
        before, started = _forget_peak(), time.process_time()
        for name in STEPS[step](store, instance):
            if name:
                print(json.dumps([name, time.process_time() - started, peak_mib() - before]), flush=True)
            before, started = _forget_peak(), time.process_time()


def _forget_peak() -> float:
    """MiB that this process has now; what `peak_mib` says begins there."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000], help="cohorts (default 10 100 1000)")
    parser.add_argument("--images", type=int, default=1000, help="in each cohort (default 1000)")
    parser.add_argument("--folder", type=Path, help="where the roots are made and left; default: temporary")
    parser.add_argument("--pages", action="store_true", help="also the pages of an asset, in Chromium")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options.folder, options.step)
        return
    os.environ["PENUMO_DEID_KEY"] = KEY
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="at-size-") as temporary:
        for number in options.sizes:
            root = (options.folder or Path(temporary)) / str(number)
            build(root, number, options.images)
            for step in STEPS:
                for name, seconds, mib in measured(root, step):
                    found.setdefault(name, []).append((seconds, mib))
            if options.pages:
                pages(root, FIRST)
    print("".join([" " * 36, *(f"{number:>10,} cohorts" for number in options.sizes)]))
    for name, cells in found.items():
        print("".join([f"{name:<36}", *(f"{seconds:>9.2f} s {mib:4.0f} MiB" for seconds, mib in cells)]))


if __name__ == "__main__":
    main()
