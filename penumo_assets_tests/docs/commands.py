"""Commands in the documentation: taken out of their pages, and held against the programs that they name."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from dagster import AssetSelection, Definitions, validate_run_config
from dagster._cli import cli as dagster_cli
from dagster_dg_cli.cli.launch import launch_command

from penumo_assets.cli.main import main as penumo
from penumo_assets.definitions import build_definitions
from penumo_assets.partitions import architectures, cohorts

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted([*(CHECKOUT / "docs").glob("*.md"), CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"])
# Without an account, a registry or a service these cannot be run; their pages say so.
NEEDS_AWS = ("aws", "docker", "$compose", "compose")
SHELL = ("export", "true", ".", "cd", "mkdir", "rm", "echo", "for", "do", "done", "printf", "chmod", "envsubst")
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One simple command of a page, as words."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks(page: Path) -> list[str]:
    """The text of a page's bash blocks."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[Command]:
    """Every simple command of a page's bash blocks; assignments and comments are left out."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
            lexer.whitespace_split = True
            simple: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set(";&|()") and word:
                    while simple and (simple[0] in ("do", "then") or re.match(r"^[A-Z_]+=|^[a-z_]+=", simple[0])):
                        simple = simple[1:]
                    if simple:
                        yield Command(page.relative_to(CHECKOUT).as_posix(), tuple(simple))
                    simple = []
                else:
                    simple.append(word)


def check(command: Command, files: Path) -> None:
    """Raise if the program would refuse the command. Words that stand for a path become ``files`` or a file in it."""
    program, *arguments = command.words
    if program == "penumo":
        given = parse(penumo, [_placed(word, files) for word in arguments])
        if arguments[0] == "launch":
            _check_launch(given)
    elif program == "dagster":
        parse(dagster_cli, arguments)
    elif program == "dg":
        _check_dg(arguments)
    elif program == "make":
        assert all(re.search(rf"^{word}:", _makefile(), re.MULTILINE) for word in arguments), command
    elif program == "python":
        _check_python(arguments)
    else:
        known = (*SHELL, *NEEDS_AWS, "curl", "cut", "git", "grep", "xargs", "pytest", "pre-commit", "openssl")
        assert program in known, f"nothing checks this command: {command}"


def parse(group: click.Command, arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters of the subcommand that ``arguments`` name; click's error if it would refuse them."""
    context = click.Context(group, **group.context_settings)  # click remembers the options for help
    rest = list(arguments)
    while isinstance(group, click.Group):
        name, found, rest = group.resolve_command(context, rest)
        assert found is not None
        group, context = found, click.Context(found, parent=context, info_name=name)
    return group.make_context(group.name, rest, parent=context.parent).params


def _check_dg(arguments: Sequence[str]) -> None:
    if arguments[0] != "launch":
        assert arguments[0] in ("dev", "list", "check"), arguments
        return
    _check_launch(launch_command.make_context("launch", list(arguments[1:])).params)


def _check_launch(given: Mapping[str, Any]) -> None:
    """Whether assets, partition and configuration of `penumo launch` or `dg launch` are there and fit each other."""
    arguments = dict(given)
    definitions = _definitions()
    graph = definitions.resolve_asset_graph()
    keys = AssetSelection.from_coercible(given["assets"].split(",")).resolve(graph)
    assert keys, arguments
    partitioned = {graph.get(key).partitions_def for key in keys}
    if partitioned == {architectures}:
        assert given["partition"] in architectures.get_partition_keys(), arguments
    else:
        assert (given["partition"] is not None) == (partitioned == {cohorts}), arguments
    if given["config_json"]:
        job = definitions.resolve_implicit_job_def_def_for_assets(keys)
        assert job is not None
        validate_run_config(job, json.loads(given["config_json"]))


def _check_python(arguments: Sequence[str]) -> None:
    if arguments[0] == "-m":
        assert find_spec(arguments[1]), arguments
        return
    script = CHECKOUT / arguments[0]
    assert script.is_file(), script
    source = script.read_text(encoding="utf-8")
    assert all(word in source for word in arguments[1:] if word.startswith("--")), arguments


@cache
def _definitions() -> Definitions:
    return build_definitions()


@cache
def _makefile() -> str:
    return (CHECKOUT / "Makefile").read_text(encoding="utf-8")


def _placed(word: str, files: Path) -> str:
    """A path of this machine for one of the page's: a folder, a film, or settings."""
    if word == "/path/to/folder":
        return str(files)
    return str(files / word) if re.fullmatch(r"[a-z]+\.(dcm|png|yaml)", word) else word
