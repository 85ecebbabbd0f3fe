"""Pages for who comes from elsewhere, or changes this: every link leads to a file."""

import re

import pytest

from penumo_assets_tests.docs.commands import CHECKOUT

PAGES = ("development.md", "original_design.md")


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file(name: str) -> None:
    page = CHECKOUT / "docs" / name
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert targets
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_every_row_of_the_original_design_has_a_link() -> None:
    lines = (CHECKOUT / "docs" / "original_design.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert len(rows) > 8
    assert all("](" in row for row in rows)
