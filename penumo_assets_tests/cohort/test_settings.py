"""How a cohort was prepared is recorded by stage: an endpoint must prepare new images in the same way."""

from collections.abc import Sequence
from pathlib import Path

from penumo_assets.cohort.landing import Landing
from penumo_assets.cohort.plan import PlanSettings, PreparePlan
from penumo_assets.cohort.publish import open_manifest, plan_publication, publish, read_settings
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import STAGES
from penumo_assets.resources.storage.file_store import FileStore


def prepare(store: FileStore, config: PrepareConfig, stages: Sequence[str]) -> None:
    settings, base = PlanSettings(config, "", "", tuple(stages)), open_manifest(store, "ward")
    publish(store, base, plan_publication(Landing("ward", (), {}, {}), PreparePlan((), (), ()), settings, base))


def test_the_settings_of_a_whole_pass_are_kept(tmp_path: Path) -> None:
    config = PrepareConfig.parse({"enhance": {"apply_mask": True}, "npz": {"filename": "{image_id}"}})
    prepare(FileStore(tmp_path), config, STAGES)
    assert PrepareConfig.parse(read_settings(FileStore(tmp_path), "ward")) == config


def test_a_stage_alone_changes_its_own_settings_only(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    prepare(store, PrepareConfig(), STAGES)
    changed = PrepareConfig.parse({"enhance": {"apply_mask": True}, "segment": {"threshold": 0.3}})
    prepare(store, changed, ["preprocessed"])
    found = PrepareConfig.parse(read_settings(store, "ward"))
    assert found.enhance.apply_mask
    assert found.segment == PrepareConfig().segment


def test_an_unknown_cohort_has_the_defaults(tmp_path: Path) -> None:
    assert PrepareConfig.parse(read_settings(FileStore(tmp_path), "ward")) == PrepareConfig()
