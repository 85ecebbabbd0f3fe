"""How a cohort was prepared is recorded by stage: an endpoint must prepare new images in the same way."""

from pathlib import Path

from penumo_assets.cohort.publish import read_settings, write_settings
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import STAGES
from penumo_assets.resources.storage import FileStore


def test_the_settings_of_a_whole_pass_are_kept(tmp_path: Path) -> None:
    config = PrepareConfig.parse({"enhance": {"apply_mask": True}, "npz": {"filename": "{image_id}"}})
    write_settings(FileStore(tmp_path), "ward", config, STAGES)
    assert PrepareConfig.parse(read_settings(FileStore(tmp_path), "ward")) == config


def test_a_stage_alone_changes_its_own_settings_only(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    write_settings(store, "ward", PrepareConfig(), STAGES)
    changed = PrepareConfig.parse({"enhance": {"apply_mask": True}, "segment": {"threshold": 0.3}})
    write_settings(store, "ward", changed, ["preprocessed"])
    found = PrepareConfig.parse(read_settings(store, "ward"))
    assert found.enhance.apply_mask
    assert found.segment == PrepareConfig().segment


def test_an_unknown_cohort_has_the_defaults(tmp_path: Path) -> None:
    assert PrepareConfig.parse(read_settings(FileStore(tmp_path), "ward")) == PrepareConfig()
