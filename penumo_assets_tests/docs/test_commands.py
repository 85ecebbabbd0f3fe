"""Every command in the documentation is one that its program takes; `test_blocks.py` runs those that can be run."""

import re
from pathlib import Path

import click
import pytest

from penumo_assets.phantoms import write_cohort
from penumo_assets_tests.docs.commands import CHECKOUT, NEEDS_AWS, PAGES, Command, check, commands

COMMANDS = [command for page in PAGES for command in commands(page)]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_cohort(folder, "ward-7", patients=3, seed=7, dicom=False)
    (folder / "mine.yaml").touch()
    for name in ("film.dcm", "other.png"):
        (folder / name).write_bytes((folder / "images" / "broken_text.dcm").read_bytes())
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_documented_command_is_one_that_its_program_takes(command: Command, films: Path) -> None:
    check(command, films)


def test_the_pages_hold_commands() -> None:
    programs = {command.words[0] for command in COMMANDS}
    assert programs >= {"penumo", "make", "dagster", "aws"}


def test_commands_that_need_a_service_stand_on_the_pages_about_it() -> None:
    pages = {command.page for command in COMMANDS if command.words[0] in NEEDS_AWS}
    assert pages == {"docs/compose.md", "docs/data_contract.md", "docs/deploy_aws.md"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("penumo", "lend", "ward-7", "/path/to/folder"), click.UsageError),
        (("penumo", "predict", "--pictures", "x", "film.dcm"), click.UsageError),
        (("penumo", "launch", "raw_image", "--partition", "ward-7"), Exception),
        (("penumo", "launch", "predictions"), AssertionError),
        (("penumo", "launch", "training_set", "--config-json", '{"ops": {"training_set": 1}}'), Exception),
        (("dg", "launch", "--assets", "raw_image", "--partition", "ward-7"), Exception),
        (("dg", "launch", "--assets", "predictions"), AssertionError),
        (("dg", "launch", "--assets", "trained_model", "--partition", "resnet18"), AssertionError),
        (("dg", "launch", "--assets", "training_set", "--config-json", '{"ops": {"training_set": 1}}'), Exception),
        (("make", "coffee"), AssertionError),
        (("python", "benchmarks/nothing.py"), AssertionError),
        (("conda", "install"), AssertionError),
    ],
)
def test_a_command_that_would_be_refused_is_found(words: tuple, error: type, films: Path) -> None:
    with pytest.raises(error):
        check(Command("a page", words), films)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
