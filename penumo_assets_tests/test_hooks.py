"""The commit hooks: each runs the program it names, passes this checkout, and is part of `make lint`."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).parents[1]
HOOKS: list[dict[str, Any]] = [
    hook
    for repository in yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repository["hooks"]
]
FILES = ("penumo_assets/definitions.py", "penumo_assets_tests/test_hooks.py")


def run(hook: dict[str, Any], *files: str | Path) -> int:
    """The exit status of a hook on some files, with the programs of the environment that runs this test."""
    program, *arguments = shlex.split(hook["entry"])
    assert program.startswith(".venv/bin/"), program
    command = [str(Path(sys.executable).parent / Path(program).name), *arguments]
    given = map(str, files) if hook.get("pass_filenames", True) else ()
    return subprocess.run([*command, *given], cwd=CHECKOUT, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    "hook", [hook for hook in HOOKS if hook.get("pass_filenames", True)], ids=lambda hook: hook["id"]
)
def test_a_hook_passes_what_is_committed(hook: dict[str, Any]) -> None:
    """Those that look at everything are the very commands of `make lint`, see below."""
    assert run(hook, *FILES) == 0


def test_ruff_finds_and_mends_what_is_not_clean(tmp_path: Path) -> None:
    hooks = {hook["id"]: hook for hook in HOOKS}
    file = tmp_path / "untidy.py"
    file.write_text("import os\nx = {'a':1}\n", encoding="utf-8")
    assert run(hooks["ruff"], file) == 1
    assert run(hooks["ruff-format"], file) == 0
    assert file.read_text(encoding="utf-8") == 'import os\n\nx = {"a": 1}\n'


def test_a_commit_and_make_lint_ask_the_same() -> None:
    recipe = (CHECKOUT / "Makefile").read_text(encoding="utf-8").split("\nlint:")[1].split("\n\n")[0]
    asked = {line.split("$(BIN)/")[1].split(" .")[0].removesuffix(" --check") for line in recipe.splitlines()[1:]}
    assert asked == {hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in HOOKS}
