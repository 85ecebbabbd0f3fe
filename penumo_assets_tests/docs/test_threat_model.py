"""docs/threat_model.md claims nothing that no test holds, and SECURITY.md leads where it says."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CHECKOUT = TESTS.parent
PAGE = (CHECKOUT / "docs" / "threat_model.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.trust


def test_every_threat_names_the_test_of_its_defence_or_says_that_there_is_none() -> None:
    _, *sections = PAGE.split("| threat | defence | test |")
    rows = [line for section in sections for line in re.findall(r"^\| .* \|$", section, re.MULTILINE)]
    assert len(rows) > 20
    for line in rows:
        assert ("::test_" in line) != ("not defended" in line), line


def test_every_test_that_it_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (TESTS / file).read_text(encoding="utf-8"), f"{file}::{test}"


@pytest.mark.parametrize(
    "boundary", ["Files from outside", "People", "Bucket and jobs", "MLflow", "What is brought in"]
)
def test_every_boundary_has_its_threats(boundary: str) -> None:
    assert re.search(rf"^\*\*\d\. {boundary}\*\*$", PAGE, re.MULTILINE)


def test_the_security_policy_leads_to_files_that_exist_and_targets_that_run() -> None:
    text = (CHECKOUT / "SECURITY.md").read_text(encoding="utf-8")
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    for path, _, anchor in (target.partition("#") for target in re.findall(r"\]\(([^)]+)\)", text)):
        headings = re.findall(r"^#+ (.*)$", (CHECKOUT / path).read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, f"{path}#{anchor}"
    for target in re.findall(r"`make (\w+)`", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
