"""The YAML files are the defaults: whoever edits one changes what every launchpad, sensor and job starts from."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import penumo_assets
from penumo_assets.configs.base import ConfigError, StrictModel, defaults_from
from penumo_assets.configs.train import PRESETS

SOURCE = Path(penumo_assets.__file__).parent
SHOW = """
from penumo_assets.assets.prepare import PrepareLaunchpad
from penumo_assets.assets.search import trial_spec
from penumo_assets.configs.prepare import BlurConfig, PrepareConfig
from penumo_assets.configs.search import SearchConfig
from penumo_assets.configs.train import Gates
from penumo_assets.records import TrainingSetRecord
from penumo_assets.resources.profile import root_store
dataset = TrainingSetRecord(prefix="training_set/1", names=(), digest="1")
arguments = trial_spec(root_store(), "resnet34", dataset, SearchConfig()).arguments
print(PrepareLaunchpad().enhance.gaussian_blur.sigma, PrepareConfig.parse({}).enhance.gaussian_blur.sigma)
print(BlurConfig(kernel_size=5).sigma, Gates.defaults().max_ece)
print(arguments[arguments.index("--learning-rate") + 1])
"""


def copied(folder: Path, file: str, before: str, after: str) -> Path:
    """A copy of the package in which somebody has edited a configuration file."""
    package = folder / "penumo_assets"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / "configs" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")
    return folder


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )


def test_an_edited_default_reaches_launchpads_jobs_and_searches(tmp_path: Path) -> None:
    copied(tmp_path, "prepare_config.yaml", "sigma: 0.8", "sigma: 3.25")
    train = tmp_path / "penumo_assets" / "configs" / "train_config.yaml"
    train.write_text(train.read_text().replace("learning_rate: 0.001", "learning_rate: 0.0125"), encoding="utf-8")
    train.write_text(train.read_text().replace("max_ece: 0.15", "max_ece: 0.5"), encoding="utf-8")
    done = run(tmp_path, SHOW)
    assert done.stdout.split() == ["3.25", "3.25", "3.25", "0.5", "0.0125"], done.stderr


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (
            "    tile_grid: 8",
            "    tile_gird: 8",
            "enhance.clahe.tile_gird is unknown; enhance.clahe.tile_grid is missing",
        ),
        ("  crop_margin: 0.05", "  crop_margin: 7", "enhance.crop_margin: Input should be less than or equal to 1"),
        ("  min_side: 32", "  min_side: 32\n  min_side: 33", "prepare_config.yaml is not valid YAML: a key repeats"),
    ],
)
def test_a_default_that_cannot_be_used_is_refused_by_file_and_key(
    tmp_path: Path, before: str, after: str, reason: str
) -> None:
    copied(tmp_path, "prepare_config.yaml", before, after)
    done = run(tmp_path, "import penumo_assets.configs.prepare")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "prepare_config.yaml, which holds the defaults" in last
    assert reason in last


def test_a_preset_may_be_the_default_and_one_that_training_would_refuse_is_named(tmp_path: Path) -> None:
    copied(tmp_path, "train_config.yaml", "  preset: none", "  preset: quick")
    done = run(tmp_path, "from penumo_assets.configs.train import *; print(TrainConfig.parse({'seed': 3}).resolution)")
    assert done.stdout.split() == [str(PRESETS["quick"]["resolution"])], done.stderr
    presets = tmp_path / "penumo_assets" / "configs" / "train_presets.yaml"
    with presets.open("a", encoding="utf-8") as file:
        file.write("mine:\n  resolution: 100\n")
    done = run(tmp_path, "import penumo_assets.configs.train")
    assert "preset mine of train_presets.yaml is not valid: resolution" in done.stderr.strip().splitlines()[-1]


class Inner(StrictModel):
    """Settings in settings."""

    low: int
    high: int


def test_a_key_that_is_left_out_means_its_default_at_every_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text("inner: {low: 1, high: 9}\nname: x\n", encoding="utf-8")
    monkeypatch.setattr("penumo_assets.configs.base.FOLDER", tmp_path)

    @defaults_from("own.yaml")
    class Outer(StrictModel):
        inner: Inner
        name: str

    assert Outer.parse({"inner": {"high": 5}}) == Outer.parse({"name": "x", "inner": {"low": 1, "high": 5}})
    assert Inner.parse({"low": 3}).high == 9
    with pytest.raises(ConfigError, match=r"inner\.medium"):
        Outer.parse({"inner": {"medium": 5}})
