"""What a person does in Dagster's pages, on phantoms: look, materialize, backfill, and let a sensor do it."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from penumo_assets_tests.browser.site import CHECKOUT, Site, wait

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STAGES = ("raw_images", "lung_masks", "preprocessed_images", "npz_tensors")
IMAGING = "/locations/penumo_assets/asset-groups/imaging"


def open_group(page: "Page") -> None:
    """The dialog that asks which cohorts to materialize the four stages for."""
    page.goto(IMAGING)
    page.get_by_role("button", name="Materialize all").click()
    # The segmenter's bundled weights serve until it is materialized, which Dagster cannot know.
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_load_state("networkidle")  # what is loaded later would close the list of cohorts again


def launch(page: "Page", button: str) -> None:
    with page.expect_response(lambda response: re.search(r"mutation \w*Launch", response.request.post_data or "")):
        page.get_by_role("button", name=button).click()


@pytest.fixture(scope="module")
def prepared(browser, site: Site) -> Site:
    """ward-1, materialized from the pages."""
    page = browser.new_page(base_url=site.url)
    open_group(page)
    page.get_by_text("Select a partition or create one").click()
    page.get_by_text("ward-1", exact=True).filter(visible=True).last.click()
    page.keyboard.press("Escape")
    launch(page, "Launch 1 run")
    page.close()
    (run,) = site.wait_for_runs({"ward-1"})
    assert run["status"] == "SUCCESS", site.log.read_text()[-3000:]
    return site


def test_the_graph_opens_and_shows_every_asset(page: "Page") -> None:
    page.goto("/asset-groups")
    groups = page.get_by_text(re.compile("^(ingest|segmentation|imaging|learning|serving)$"))
    groups.nth(4).wait_for()
    page.keyboard.press("Alt+e")
    for asset in ("landing", *STAGES, "hyperparameter_search", "evaluation_report", "champion_model", "predictions"):
        page.get_by_text(re.compile(f"^{asset[:8]}")).first.wait_for()  # the middle of a long name is left out


def test_one_cohort_is_materialized_from_the_pages(prepared: Site) -> None:
    for asset in STAGES:
        assert "ward-1" in prepared.filled(asset)


def test_a_picture_of_each_stage_is_shown(prepared: Site, page: "Page") -> None:
    for asset in STAGES:
        page.goto(f"/assets/{asset}?partition=ward-1&view=partitions")
        page.get_by_text("[Show Markdown]").first.click()
        picture = page.locator("img[src^='data:image/jpeg']")
        picture.wait_for()
        width, height = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        assert width > 400
        assert (height > 400) == (asset == "npz_tensors")  # four channels below each other


def test_rejected_files_are_listed_with_their_reason(prepared: Site, page: "Page") -> None:
    page.goto("/assets/raw_images?partition=ward-1&view=partitions")
    page.get_by_role("cell", name=re.compile(r"^[0-9a-f]{16}\.dcm$")).first.wait_for()
    page.get_by_role("cell", name=re.compile("^not_an_image: ")).first.wait_for()


def test_checks_are_shown_with_what_they_ask_and_found(prepared: Site, page: "Page") -> None:
    page.goto("/assets/raw_images/?view=checks&checkDetail=reject_rate")
    page.get_by_text("No more files of a cohort are rejected").first.wait_for()
    page.get_by_text(re.compile(r"^[0-9a-f]{16}\.png$")).first.wait_for()
    page.get_by_text("Partitions", exact=True).last.click()
    for cohort in ("ward-1", "ward-2", "ward-3"):
        page.get_by_text(cohort, exact=True).first.wait_for()
    page.goto("/assets/npz_tensors/?view=checks&checkDetail=npz_contract")
    page.get_by_text("Passed", exact=True).first.wait_for()


def test_lineage_leads_from_landing_to_predictions(prepared: Site, page: "Page") -> None:
    page.goto("/assets/npz_tensors?view=lineage&lineageScope=neighbors")
    for asset in ("lung_masks", "preprocessed_images", "training_set", "predictions"):
        page.get_by_text(asset, exact=True).first.wait_for()


def test_two_cohorts_are_backfilled_with_a_run_each(prepared: Site, page: "Page") -> None:
    open_group(page)
    page.get_by_role("button", name="Missing", exact=True).click()
    launch(page, "Launch backfill")
    runs = prepared.wait_for_runs({"ward-2", "ward-3"})
    assert [run["status"] for run in runs] == ["SUCCESS", "SUCCESS"]
    assert len({run["tags"]["dagster/backfill"] for run in runs}) == 1
    assert prepared.filled("npz_tensors") == ["ward-1", "ward-2", "ward-3"]


def test_a_sensor_switched_on_in_the_pages_prepares_a_dropped_folder(prepared: Site, films: Path, page: "Page") -> None:
    """With no further touch it becomes a cohort and fills to its tensors. It says it is complete: one tick does."""
    shutil.copytree(films / "dropped", prepared.root / "landing" / "dropped")
    (prepared.root / "landing" / "dropped" / "_COMPLETE").touch()
    page.goto("/locations/penumo_assets/sensors/landing_listing")
    page.locator("label:has(input[type=checkbox])").first.click()
    (run,) = prepared.wait_for_runs({"dropped"})
    assert run["status"] == "SUCCESS"
    assert run["tags"]["dagster/sensor_name"] == "landing_listing"
    wait(lambda: "dropped" in prepared.filled("npz_tensors") or None, "tensors of the dropped cohort")


def test_the_log_warns_of_nothing_that_is_not_explained(prepared: Site) -> None:
    """Last: what the command itself said all the while, against what docs/operations.md explains."""
    explained = "ignoring older events"
    assert explained in (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    warnings = [line for line in prepared.log.read_text().splitlines() if re.search("warning", line, re.IGNORECASE)]
    assert [line for line in warnings if explained not in line] == []
