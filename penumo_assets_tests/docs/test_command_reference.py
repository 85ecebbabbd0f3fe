"""docs/commands.md holds every command as it is, and no other; and the guides lead to each."""

import importlib.util
from pathlib import Path

import click

from penumo_assets.cli.main import main
from penumo_assets_tests.docs.commands import CHECKOUT, PAGES, commands

PAGE = CHECKOUT / "docs" / "commands.md"


def load(path: Path):
    spec = importlib.util.spec_from_file_location("docs_commands", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_commands_say() -> None:
    generated = load(CHECKOUT / "tools" / "commands.py").page()
    assert PAGE.read_text(encoding="utf-8") == generated, "run: python tools/commands.py"


def test_every_command_and_every_option_says_what_it_is_for() -> None:
    for name, command in main.commands.items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_every_command_is_used_on_a_page_that_explains_it() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page != PAGE)
    used = {command.words[1] for page in PAGES for command in commands(page) if command.words[0] == "penumo"}
    missing = {name for name in main.commands if name not in used and f"`penumo {name}" not in text}
    assert missing == set()
