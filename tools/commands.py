"""Write docs/commands.md from the commands' own help.

python tools/commands.py
"""

from pathlib import Path

from penumo_assets.cli.main import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "commands.md"
WIDTH = 110
INTRODUCTION = """# Commands

`penumo` is the application's own command line; what it leaves to Dagster (`dg`, `dagster`) works as usual. All of them
read `.env` of the folder they run in. This page is written by `python tools/commands.py`.

`penumo --demo COMMAND` works on [the demo](tutorial.md#1-see-it-work)'s root, Dagster instance and key instead of
yours.

"""


def page() -> str:
    """The Markdown of the whole page."""
    width = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = main.make_context("penumo", [], resilient_parsing=True, **width)
    parts = [INTRODUCTION]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        own = command.make_context(name, [], context, resilient_parsing=True, **width)
        parts.append(f"## penumo {name}\n\n```text\n{command.get_help(own)}\n```\n\n")
    return "".join(parts) + "## make\n\n" + _targets()


def _targets() -> str:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    documented = [line.partition("##") for line in lines if "## " in line and not line.startswith(("\t", "#"))]
    rows = [f"| `make {line.split(':')[0]}` | {what.strip()} |\n" for line, _, what in documented]
    return "| target | what it does |\n|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
