"""`make demo` as a newcomer runs it, with fewer phantoms and one epoch."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from penumo_assets.cli.demo import SWITCHED_ON

pytestmark = pytest.mark.slow


def test_the_demo_goes_from_phantoms_to_predictions_and_says_what_it_made(tmp_path: Path) -> None:
    ours = ("PENUMO_", "DAGSTER_", "MLFLOW_", "AWS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PENUMO_ROOT": str(tmp_path / "root"), "DAGSTER_HOME": str(tmp_path / "dagster")}
    command = [sys.executable, "-m", "penumo_assets.cli.main", "demo", "--patients", "40", "--epochs", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("runs on PHANTOMS") == 2
    table = {tuple(line.split()[:2]) for line in done.stdout.splitlines()}
    made = [(asset, cohort) for asset in ("npz_tensors", "predictions") for cohort in ("phantom-dicom", "phantom-png")]
    made += [("trained_model", "resnet34"), ("trained_model", "resnet50")]
    assert table.issuperset(made)
    metrics = dict(re.findall(r"^(test_\w+|threshold) +(.*)$", done.stdout, re.MULTILINE))
    assert metrics["test_roc_auc"].split() == [f"{float(value):.3f}" for value in metrics["test_roc_auc"].split()]
    pages = [Path(path) for path in re.findall(r"^report: (.*)$", done.stdout, re.MULTILINE)]
    assert [page.parent.parent.name for page in pages] == ["resnet34", "resnet50"]
    for page in pages:
        assert page.read_text().startswith("<!DOCTYPE html>")
        assert json.loads(page.with_name("report.json").read_text())
    assert f"switched on for `make dev`: {', '.join(SWITCHED_ON)}" in done.stdout
