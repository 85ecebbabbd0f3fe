"""A browser, and an installation with two landed cohorts for it to look at."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penumo_assets.phantoms import write_cohort
from penumo_assets_tests.browser.site import Site, start

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 40_000


@pytest.fixture(scope="package")
def browser() -> "Iterator[Browser]":
    playwright: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    if not found:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox needs rights that containers do not have; only this test's pages are opened.
        browser = driver.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of phantoms: ward-1, ward-2, ward-3 and dropped."""
    folder = tmp_path_factory.mktemp("films")
    for seed, cohort in enumerate(("ward-1", "ward-2", "ward-3", "dropped")):
        write_cohort(folder / cohort, cohort, patients=4, seed=seed, dicom=False)
    return folder


@pytest.fixture(scope="package")
def site(browser: "Browser", films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three landed cohorts. It needs the browser first, so that nothing is started where there is none."""
    site = start(tmp_path_factory.mktemp("site") / "root")
    try:
        for cohort in ("ward-1", "ward-2", "ward-3"):
            site.penumo("land", cohort, str(films / cohort))
        yield site
    finally:
        site.stop()


@pytest.fixture
def page(browser: "Browser", site: Site) -> "Iterator[Page]":
    page = browser.new_page(viewport={"width": 1500, "height": 1400}, base_url=site.url)
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()
