"""Many cohorts through the real graph at once: how fast, how much memory, and whether the pages still answer.

`dg dev` on loopback with the shipped settings, one backfill of all cohorts through GraphQL, real prepare jobs, then the
training set over all of them. Meanwhile, every second: resident memory of each kind of process, and the requests of
one of four pages (of an asset, and of a run), caught from Chromium once and sent again.

    python benchmarks/load.py                                # 6 cohorts of 100 images
    python benchmarks/load.py --cohorts 20 --images 5000     # full size: 40 minutes, 32 GB below --folder
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from dagster import DagsterInstance

if not __package__:  # run as a file: its neighbours and the tests' helpers are found from the checkout
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.load_inputs import land_cohorts
from benchmarks.load_watch import AssetPage, Usage, visit
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.jobs.manifest import STAGE_ASSETS
from penumo_assets.partitions import cohorts as cohort_partitions
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.browser.conftest import BROWSERS
from penumo_assets_tests.browser.site import Site, start

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAGES = (
    "/assets/raw_images",
    "/assets/npz_tensors?view=partitions&partition={cohort}",
    "/assets/npz_tensors?view=events",
    "/runs/{run}",
)
LAUNCH = """mutation Launch($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL = """query Backfill($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status } } }"""
MATERIALIZE = """mutation Materialize($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
ENDED = ("SUCCESS", "FAILURE", "CANCELED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED")


@contextmanager
def chromium() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    found = [path for name in BROWSERS if (path := shutil.which(name))]
    if not found:
        sys.exit(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield browser
        browser.close()


def caught(site: Site, cohort: str) -> list[AssetPage]:
    """The pages' requests, and what a browser takes to show each of them."""
    run = next(run["runId"] for run in site.runs() if run["tags"].get("dagster/partition") == cohort)
    pages = []
    with chromium() as browser:
        page = browser.new_page(base_url=site.url)
        page.goto("/overview", wait_until="networkidle")  # the application itself is in the browser's cache now
        for path in PAGES:
            bodies, seconds = visit(page, path.format(cohort=cohort, run=run))
            print(f"  in Chromium, last answer: {path} {seconds:.2f} s")
            pages.append(AssetPage(site.url, bodies))
    return pages


def watch(usage: Usage, pages: list[AssetPage], ended: Callable[[], bool], until: float) -> None:
    """A sample of memory and one of the pages, in turn, every second until something has ended."""
    visits = cycle(pages)
    while not ended():
        if time.monotonic() > until:
            raise TimeoutError("not done within --minutes")
        began = time.monotonic()
        usage.sample()
        if pages:
            next(visits).open()
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))


def backfill(site: Site, names: list[str]) -> Callable[[], bool]:
    """Start a backfill of the four stages; returns whether it has ended."""
    params = {"assetSelection": [{"path": [stage]} for stage in STAGE_ASSETS], "partitionNames": names}
    started = site.ask(LAUNCH, params=params)["launchPartitionBackfill"]["backfillId"]
    return lambda: site.ask(BACKFILL, id=started)["partitionBackfillOrError"]["status"] in ENDED


def training_set(site: Site) -> Callable[[], bool]:
    """Start the training set; returns whether it has ended well."""
    selector = {
        "repositoryLocationName": "penumo_assets",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": ["training_set"]}],
    }
    answer = site.ask(MATERIALIZE, params={"selector": selector, "mode": "default"})["launchPipelineExecution"]
    run = answer["run"]["runId"]

    def ended() -> bool:
        status = site.ask(RUN, id=run)["runOrError"]["status"]
        assert status not in ("FAILURE", "CANCELED"), "the training set failed"
        return status in ENDED

    return ended


def measure(site: Site, names: list[str], images: int, minutes: float) -> None:
    began = time.monotonic()
    broken = land_cohorts(site.root / "landing", names, images)
    print(f"landed {len(names)} cohorts of {images} images in {time.monotonic() - began:.0f} s")
    with DagsterInstance.from_config(str(site.root / "dagster")) as instance:
        instance.add_dynamic_partitions(str(cohort_partitions.name), names)
    usage = Usage(psutil.Process(site.process.pid))
    until = time.monotonic() + 60 * minutes
    started = time.monotonic()
    ended = backfill(site, names)
    watch(usage, [], lambda: bool(site.filled("npz_tensors")), until)
    pages = caught(site, site.filled("npz_tensors")[0])
    watch(usage, pages, ended, until)
    spent = time.monotonic() - started
    store = FileStore(site.root)
    codes = Counter(row.code for name in names for row in read_manifest(store, name))
    assert (codes.total(), codes["truncated"]) == (len(names) * images, broken), "an image was lost, or not named"
    rejected = ", ".join(f"{code} {count}" for code, count in codes.items() if code)  # a drawn film may look like none
    print(f"backfill: {codes.total():,} images in {spent:.0f} s, {codes.total() / spent:.1f} images/s, {rejected}")
    began = time.monotonic()
    watch(usage, pages, training_set(site), until)
    print(f"training set: {codes[None]:,} images in {time.monotonic() - began:.0f} s")
    report(site, usage, pages)
    caught(site, names[-1])


def report(site: Site, usage: Usage, pages: list[AssetPage]) -> None:
    print("all processes of a kind together:", *usage.report(), sep="\n")
    for path, page in zip(PAGES, pages, strict=True):
        print(f"{path}: {page.report()}")
    databases = [path for path in (site.root / "dagster").rglob("*.db*") if path.is_file()]
    print(f"Dagster's databases: {sum(path.stat().st_size for path in databases) / 2**20:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=6, help="full size: 20 (default 6)")
    parser.add_argument("--images", type=int, default=100, help="in each cohort; full size: 5000 (default 100)")
    parser.add_argument("--minutes", type=float, default=120, help="give up after so many (default 120)")
    parser.add_argument("--folder", type=Path, help="where the installation is made and left; default: temporary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-") as temporary:
        site = start((options.folder or Path(temporary)) / "root")
        try:
            measure(site, [f"ward-{item:04d}" for item in range(options.cohorts)], options.images, options.minutes)
        finally:
            site.stop()
    print(f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (this benchmark's included)")


if __name__ == "__main__":
    main()
