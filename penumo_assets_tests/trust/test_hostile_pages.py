"""Strings from outside on the pages people open: the report's HTML and the Markdown of Dagster's metadata."""

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dagster import Failure

from penumo_assets.assets.pages import link, mlflow_run, text_block
from penumo_assets.assets.shared import job_failures
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.metrics.report.content import GateResult
from penumo_assets.metrics.report.html import Picture, render_html
from penumo_assets.metrics.report.inline import chart_data_uris
from penumo_assets.resources.compute.spec import JobFailed
from penumo_assets_tests.metrics.report.test_html import Page
from penumo_assets_tests.metrics.synthetic import evaluation

pytestmark = pytest.mark.trust

RUN = "window.ran=(window.ran||0)+1"
PLANTED = (
    f"<script>{RUN}</script>",
    f'<img src="x" onerror="{RUN}">',
    f'"><svg onload=\'{RUN}\'><a href="javascript:{RUN}">x</a>',
    f"</style></svg></desc></title></details><iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    "{{ 7*7 }}{% raw %}'\"&amp;\u202e]]><!--",
)
EVERYTHING = "".join(PLANTED)
STATEMENTS = (
    "aims", "design", "external_test", "registration", "acquisition", "reference_standard", "reference_rationale",
    "annotators", "rater_variability", "sample_size", "availability", "protocol", "funding", "code_version",
    "config_digest", "mlflow_run_id",
)  # fmt: skip


@pytest.fixture(scope="module")
def hostile_page() -> str:
    """A report in which every string that comes from outside is an attack."""
    context = dict.fromkeys(STATEMENTS, EVERYTHING) | {
        "flow": {EVERYTHING: {"accepted": 1, "rejected": {EVERYTHING: 2}}},
        "dice": [{"cohort": EVERYTHING, "patient_id": "p", "image_id": EVERYTHING, "dice": 0.9, "iou": 0.8}] * 2,
        "gates": {"max_ece": 0.5},
    }
    base = evaluation(60, context=context)
    for frame in base.index.values():
        frame["cohort"] = np.where(np.arange(60) % 2, EVERYTHING, "alpha")
        frame["sex"], frame["view"] = EVERYTHING, EVERYTHING
        frame["image_id"] = [f"{EVERYTHING}{number}" for number in range(60)]
        frame["patient_id"] = [f"{EVERYTHING}{number}" for number in range(60)]
    names = [f"{EVERYTHING}0", f"{EVERYTHING}1"]
    hostile = replace(
        base,
        classes=names,
        model={**base.model, "architecture": EVERYTHING, "hyperparameters": {EVERYTHING: EVERYTHING}},
        dataset={"digest": EVERYTHING, "salt": EVERYTHING},
    )
    report = build_report(hostile)
    gate = GateResult(gate=EVERYTHING, limit=None, value=None, status="failed", reason=EVERYTHING)
    versions = report.versions.model_copy(update={"libraries": {EVERYTHING: EVERYTHING}})
    report = report.model_copy(update={"gates": (gate,), "created": EVERYTHING, "versions": versions})
    pictures = [Picture("data:image/png;base64,AAAA", None)] * len(report.failures)
    return render_html(report, hostile.context, pictures)


def test_a_report_full_of_attacks_holds_them_as_text(hostile_page: str) -> None:
    page = Page(hostile_page)
    assert not any(page.named(tag) for tag in ("script", "iframe", "object", "embed", "form", "base", "link"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert {str(attributes.get("href"))[:1] for attributes in page.named("a")} == {"#"}
    assert {image["src"][:11] for image in page.named("img")} <= {"data:image/"}
    assert " ".join(page.text).count(PLANTED[0]) > 40
    assert "{{ 7*7 }}{% raw %}" in " ".join(page.text)


def test_a_chart_that_is_shown_outside_the_report_holds_no_attack_either() -> None:
    base = replace(evaluation(60), classes=[f"{EVERYTHING}0", f"{EVERYTHING}1"])
    for uri in chart_data_uris(build_report(base)).values():
        assert uri.startswith("data:image/svg+xml;base64,")
        assert not set(uri.removeprefix("data:image/svg+xml;base64,")) & set("<>()\"' ")


@pytest.mark.browser
def test_nothing_runs_when_the_report_is_opened(hostile_page: str, tmp_path) -> None:
    playwright: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no browser on the PATH")
    planted = f"<body><script>{RUN}</script><img src=x onerror='{RUN}'><iframe src='/etc/hostname'></iframe>"
    leak = "<img src='http://127.0.0.1:9/leak'><style>@import 'http://127.0.0.1:9/leak'</style>"
    (tmp_path / "escaped.html").write_text(hostile_page, encoding="utf-8")
    # Should an attack ever get through the escaping, the page's own policy must stop it.
    (tmp_path / "through.html").write_text(hostile_page.replace("<body>", planted + leak, 1), encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for name in ("escaped.html", "through.html"):
            page = browser.new_page()
            asked: list[str] = []
            page.on("response", lambda answer, asked=asked: asked.append(answer.url))
            page.goto((tmp_path / name).as_uri(), wait_until="load")
            assert page.evaluate("window.ran") is None, name
            assert page.locator("h2").count() > 10
            assert [url for url in asked if not url.startswith(("data:", (tmp_path / name).as_uri()))] == []
        browser.close()


LOGS = ("plain", "```\n<script>1</script>", "````\n[a](javascript:1)\n````", "`" * 50 + "\n# x", "~~~\n```js\n<b>", "")


@pytest.mark.parametrize("log", LOGS)
def test_the_tail_of_a_log_does_not_end_its_block(log: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    with pytest.raises(Failure) as caught, job_failures():
        raise JobFailed("it failed", log_tail=log)
    shown = caught.value.metadata["log_tail"].value
    tokens = markdown_it.MarkdownIt().parse(shown)
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content.rstrip("\n") == log.rstrip("\n")
    assert text_block(log).value == shown


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "data:text/html,<script>", "JaVaScRiPt:1", "http://x/>)<script>", "http://x y", "", "//x",
     "https://x\n\n<script>", "https://x/\\>"],
)  # fmt: skip
def test_an_address_that_is_none_becomes_no_link(address: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    assert markdown_it.MarkdownIt().render(link("run", address).value) == "<p>run</p>\n"


@pytest.mark.parametrize("text", [*PLANTED, "](javascript:1)", "a](b", "`x`", "![x](y)", "**b**", "a\n\n# b", "<!--"])
def test_the_text_of_a_link_stays_text(text: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    for shown in (link(text, "https://mlflow.example.org/#/runs/1").value, link(text, "").value):
        (paragraph,) = [token for token in markdown_it.MarkdownIt().parse(shown) if token.type == "inline"]
        kinds = {child.type for child in paragraph.children}
        assert kinds <= {"text", "text_special", "link_open", "link_close"}, kinds
        assert "".join(child.content for child in paragraph.children) == " ".join(text.split())


def test_a_run_links_to_mlflow_by_an_address_made_of_its_id() -> None:
    class Ui:
        def run_address(self, run_id: str) -> str | None:
            return f"https://mlflow.example.org/#/experiments/1/runs/{run_id}"

    assert mlflow_run(Ui(), "abc123").value == "[abc123](<https://mlflow.example.org/#/experiments/1/runs/abc123>)"
    assert mlflow_run(Ui(), None).value == "none"
