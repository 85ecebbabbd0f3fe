"""A prepare job that was ended half way: what it had finished stands, and the next attempt computes the rest alone."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from penumo_assets.assets.prepare import _prepare_spec
from penumo_assets.assets.segmenter import bundled_segmenter
from penumo_assets.cohort.landing import LandedFile, Landing
from penumo_assets.cohort.plan import PlanSettings, PreparePlan, plan_cohort
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import ManifestRow, StageOutput, dump_rows
from penumo_assets.jobs.prepare import rows as rows_module
from penumo_assets.jobs.prepare.rows import RowFiles, merged, unfinished
from penumo_assets.jobs.prepare.work import dump_work, work_lines

FILMS = 1000
RAW = PlanSettings(PrepareConfig(), "bundled", "", ("raw",))


def planned(*names: str) -> PreparePlan:
    return plan_cohort(Landing("ward", tuple(LandedFile(name, name, 1) for name in names), {}, {}), [], RAW)


def kept_files(plan: PreparePlan, outputs: Path) -> dict[str, bytes]:
    """What a runner gives to the next attempt."""
    spec = _prepare_spec(plan, PrepareConfig(), "ward", bundled_segmenter())
    names = {name: [path.name for path in (outputs / name).glob("*.*")] for name in ("raw", "rows")}
    return spec.kept_files(names, lambda name: (outputs / "rows" / name).read_bytes())


def test_a_stopped_job_loses_nothing_that_it_had_finished(tmp_path: Path) -> None:
    inputs, outputs = tmp_path / "processing" / "input", tmp_path / "processing" / "output"
    for folder in ("landing", "work"):
        (inputs / folder).mkdir(parents=True)
    picture = cv2.imencode(".png", np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))[1].tobytes()
    names = [f"{number:04d}.png" for number in range(FILMS)]
    for name in names:
        (inputs / "landing" / name).write_bytes(picture)
    plan = planned(*names)
    (inputs / "work" / "config.json").write_text(PrepareConfig().model_dump_json())
    (inputs / "work" / "work.jsonl").write_bytes(dump_work(plan.items))
    command = [sys.executable, "-m", "penumo_assets.jobs.prepare", "--workers", "2"]
    environment = os.environ | {"PENUMO_OPT_ML": str(tmp_path)}

    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        next(line for line in process.stdout if "prepared 50 of 1000 images" in line)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 143
    assert not (outputs / "rows" / "result.json").exists()
    finished = merged((path.name, path.read_bytes()) for path in (outputs / "rows").iterdir())
    assert 50 <= len(finished) < FILMS
    written = {path.name: path.stat().st_mtime_ns for path in (outputs / "raw").glob("*.png")}

    (inputs / "kept").mkdir()
    for name, data in kept_files(plan, outputs).items():
        (inputs / "kept" / name).write_bytes(data)
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"attempts before have finished {len(finished)} of {FILMS} images" in answer.stdout
    values = json.loads((outputs / "rows" / "result.json").read_text())["values"]
    assert values["images"] == FILMS - len(finished)
    everything = merged((path.name, path.read_bytes()) for path in (outputs / "rows").iterdir())
    assert sorted(everything) == names
    assert all(row.status == "accepted" for row in everything.values())
    for row in finished.values():
        name = row.stages["raw"].key.removeprefix("raw/")
        assert (outputs / "raw" / name).stat().st_mtime_ns == written[name]


@pytest.mark.parametrize(
    ("row", "there", "again"),
    [
        ({}, ["a.png"], False),
        ({}, [], True),
        ({"status": "rejected", "stage": "raw", "code": "not_an_image", "attempted": {"raw": "x"}}, [], False),
        ({"status": "rejected", "stage": "raw", "code": "unexpected_error"}, [], True),
    ],
    ids=["finished", "its picture has not arrived", "rejected", "failed for no known reason"],
)
def test_what_is_worked_on_again(tmp_path: Path, row: dict, there: list[str], again: bool) -> None:
    plan = planned("a.png")
    lines = work_lines(dump_work(plan.items))
    done = plan.items[0].row.model_copy(update=row)
    if done.status == "accepted":
        done.stages = {"raw": StageOutput(key="raw/a.png", sha256="0", fingerprint="f")}
    for output, names in (("raw", there), ("rows", ["rows-1-algo-1.jsonl"])):
        (tmp_path / output).mkdir()
        for name in names:
            (tmp_path / output / name).write_bytes(dump_rows([done]))
    kept = tmp_path / "kept"
    kept.mkdir()
    for name, data in kept_files(plan, tmp_path).items():
        (kept / name).write_bytes(data)
    assert unfinished(lines, kept) == (lines if again else [])


def test_rows_are_written_while_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "SECONDS", 0.0)
    row = ManifestRow(image_id="a", source="a.png", source_etag="e", source_bytes=1)
    with contextlib.suppress(KeyError), RowFiles(tmp_path, "algo-1") as files:
        files.add(row)
        files.add(row.model_copy(update={"notes": ["later"]}))
        assert len(list(tmp_path.iterdir())) == 2
        monkeypatch.setattr(rows_module, "SECONDS", 60.0)
        files.add(row.model_copy(update={"source": "b.png"}))
        raise KeyError
    found = merged((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    assert [(row.source, row.notes) for row in found.values()] == [("a.png", ["later"]), ("b.png", [])]
