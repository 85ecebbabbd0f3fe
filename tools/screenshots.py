"""Take the documents' pictures of the demo's pages anew: `make demo`, then

    python -m tools.screenshots

It needs Chromium and the extra `dev`. Look at every picture before you commit it.
"""

import base64
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Locator, Page, sync_playwright

from penumo_assets.cli.environment import use_demo
from penumo_assets_tests.browser.conftest import BROWSERS, PATIENCE_MS
from penumo_assets_tests.browser.site import Site, start_command

PICTURES = Path(__file__).parents[1] / "docs" / "images"
COHORT, ARCHITECTURE = "phantom-dicom", "resnet34"
SETTLE_MS = 3000  # charts and status lines are drawn after their data has come


def main() -> None:
    folder = use_demo()
    browsers = [path for name in BROWSERS if (path := shutil.which(name))]
    dagster = start_command(["dev"], folder, os.environ)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=browsers[0], args=["--no-sandbox"])
            page = browser.new_page(base_url=dagster.url, viewport={"width": 1200, "height": 800})
            page.set_default_timeout(PATIENCE_MS)
            take_dagster(page, dagster)
            newest = max(folder.glob(f"reports/{ARCHITECTURE}/*/report.html"), key=lambda path: path.stat().st_mtime)
            page.set_viewport_size({"width": 1080, "height": 1000})
            take(page, newest.as_uri(), "report.png")
            browser.close()
    finally:
        dagster.stop()


def take_dagster(page: Page, dagster: Site) -> None:
    """The graph, a run, a cohort with its rejected files, its tensors, the gates of a model, and its challenger."""
    page.goto("/runs")
    page.get_by_text("Hide navigation").click()
    page.set_viewport_size({"width": 1600, "height": 1000})
    take(page, "/asset-groups", "asset_graph.png", partial(wide_graph, page))
    page.set_viewport_size({"width": 1200, "height": 800})
    query = '{runsOrError(filter: {pipelineName: "prepare"}) {... on Runs {results {runId}}}}'
    take(page, f"/runs/{dagster.ask(query)['runsOrError']['results'][0]['runId']}", "run.png")
    take(page, f"/assets/raw_images?partition={COHORT}&view=partitions", "cohort.png")
    page.goto(f"/assets/npz_tensors?partition={COHORT}&view=partitions")
    page.get_by_text("[Show Markdown]").first.click()
    save_picture(page.locator("img[src^='data:image/jpeg']"), "npz_preview.jpg")
    take(page, "/assets/evaluation_report?view=checks", "gates.png")
    page.set_viewport_size({"width": 1200, "height": 1100})
    take(page, "/assets/champion_model?view=events", "challenger.png")


def wide_graph(page: Page) -> None:
    """Without the list of assets, and as large as the page."""
    page.locator("button:has([aria-label='panel_show_right'])").first.click()
    page.keyboard.press("Alt+e")


def take(page: Page, address: str, name: str, do: Callable[[], object] = lambda: None) -> None:
    page.goto(address)
    page.wait_for_load_state("networkidle")
    do()
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=PICTURES / name)


def save_picture(picture: Locator, name: str) -> None:
    """The picture that a page shows, in half its size."""
    source = str(picture.get_attribute("src"))
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    cv2.imwrite(str(PICTURES / name), cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
