"""docs/operations.md explains what a person meets in the UI: every check that can be red, every sensor's switch."""

import re
from pathlib import Path

from penumo_assets.checks import ASSET_CHECKS
from penumo_assets.definitions import build_definitions

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_check_that_can_be_red_is_explained_on_its_assets() -> None:
    rows = re.findall(r"^\| `(\w+|gate_…)` \| (`.*?`) \|", PAGE, re.MULTILINE)
    explained = {(name, asset) for name, assets in rows for asset in re.findall(r"`(\w+)`", assets)}
    keys = [key for check in ASSET_CHECKS for key in check.check_keys]
    existing = {
        ("gate_…" if key.name.startswith("gate_") else key.name, key.asset_key.to_user_string()) for key in keys
    }
    assert {row for row in explained if row[1] in {asset for _, asset in existing}} == existing


def test_every_sensor_is_listed() -> None:
    names = {sensor.name for sensor in build_definitions().sensors or ()}
    assert all(f"| `{name}` |" in PAGE for name in names), names
