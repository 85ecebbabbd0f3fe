"""How a cohort is prepared is kept with it, said wherever it is used, and recorded by stage as it was done."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from penumo_assets.cohort.landing import Landing
from penumo_assets.cohort.plan import PlanSettings, PreparePlan
from penumo_assets.cohort.publish import open_manifest, plan_publication, publish, read_settings
from penumo_assets.cohort.settings import check_settings
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import STAGE_ASSETS, STAGES
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import ObjectChanged
from penumo_assets_tests.backfills.stub_jobs import StubJobRunner, png
from penumo_assets_tests.cohort.conftest import Desk
from penumo_assets_tests.house import House, failure_of, open_house


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


def test_a_cohorts_settings_are_kept_as_they_were_written_and_shown_with_where_they_stand(desk: Desk) -> None:
    assert desk.penumo("settings", "ward-7").startswith("# ward-7: the default (configs/prepare_config.yaml)\n")
    text = "segment:\n  threshold: 0.3  # thin patients\n"
    said = desk.penumo("settings", "ward-7", desk.file("mine.yaml", text))
    assert "# ward-7: the cohort's (settings/ward-7.yaml): segment.threshold 0.3 (else 0.5)" in said
    assert desk.store.read("settings/ward-7.yaml").decode() == text
    shown = desk.penumo("settings", "ward-7")
    assert PrepareConfig.from_bytes(shown.encode(), "shown").segment.threshold == 0.3
    assert desk.penumo("settings", "ward-8").startswith("# ward-8: the default")


def test_settings_are_replaced_after_a_question_that_says_what_differs(desk: Desk) -> None:
    desk.penumo("settings", "ward-7", desk.file("first.yaml", "segment: {threshold: 0.3}"))
    second = desk.file("second.yaml", "segment: {threshold: 0.4}")
    said = desk.penumo("settings", "ward-7", second, answer="n\n", fails=True)
    assert "segment.threshold 0.4 (else 0.3)" in said
    assert "nothing was changed: agree, or add --yes" in said
    assert "nothing was changed" in desk.penumo("settings", "ward-7", second, fails=True), "nobody is there to ask"
    assert "threshold 0.3" in desk.penumo("settings", "ward-7")
    desk.penumo("settings", "ward-7", second, answer="y\n")
    assert "threshold 0.4" in desk.penumo("settings", "ward-7")
    desk.penumo("settings", "ward-7", desk.file("empty.yaml", ""), "--yes")
    assert desk.penumo("settings", "ward-7").startswith("# ward-7: the cohort's (settings/ward-7.yaml)\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("segment: {treshold: 0.3}", "mine.yaml is not valid: segment.treshold: Extra inputs are not permitted"),
        ("ops: {prepare_cohort: {}}", "mine.yaml is not valid: ops: Extra"),
        ("segment: {threshold: 3}", "segment.threshold: Input should be less than 1"),
        ("segment: [", "mine.yaml is not valid YAML"),
        ("- a", "mine.yaml is not valid: PrepareConfig: Input should be"),
        ("a: " + "x" * 2**18, "mine.yaml is not valid YAML: it is longer than"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_written(
    desk: Desk, text: str, reason: str
) -> None:
    file = desk.file("mine.yaml", text)
    for command in (["settings", "ward-7", file], ["land", "ward-7", desk.films("a.png"), "--config", file]):
        said = desk.penumo(*command, fails=True)
        assert reason in said
        assert "The names are those of configs/prepare_config.yaml" in said
    assert not [*desk.keys("settings"), *desk.keys("landing")]
    assert "not a valid cohort name" in desk.penumo("settings", "ward 7", desk.file("good.yaml", ""), fails=True)


def test_landing_keeps_the_settings_that_come_with_the_films_and_none_if_the_films_are_refused(desk: Desk) -> None:
    file = desk.file("mine.yaml", "segment: {threshold: 0.3}")
    (desk.folder / "nothing").mkdir()
    desk.penumo("land", "ward-7", str(desk.folder / "nothing"), "--config", file, fails=True)
    assert desk.keys("settings") == []
    desk.penumo("land", "ward-7", desk.films("a.png"), "--config", file)
    assert desk.keys("settings") == ["settings/ward-7.yaml"]
    other = desk.file("other.yaml", "segment: {threshold: 0.4}")
    desk.penumo("land", "ward-7", desk.films("b.png"), "--config", other, answer="n\n", fails=True)
    assert desk.keys("landing") == ["landing/ward-7/_COMPLETE", "landing/ward-7/a.png"]
    desk.penumo("land", "ward-7", desk.films("b.png"))
    assert "threshold 0.3" in desk.penumo("settings", "ward-7"), "landing more films changes no settings"


def test_two_who_replace_the_same_settings_do_not_both_succeed(desk: Desk) -> None:
    desk.penumo("settings", "ward-7", desk.file("first.yaml", ""))
    mine, theirs = (check_settings(desk.store, "ward-7", each, "x") for each in (b"npz: {}", b"labels: {}"))
    theirs.write(desk.store)
    with pytest.raises(ObjectChanged):
        mine.write(desk.store)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as house:
        house.resources["jobs"] = StubJobRunner(storage=house.resources["storage"])
        house.store.write("landing/ward/a.png", png(1))
        house.instance.add_dynamic_partitions("cohort", ["ward"])
        yield house


def launch(house: House, once: dict | None = None) -> tuple[str, int]:
    """What the page of raw_images says of the settings, and how many images were masked."""
    result = house.materialize(*STAGE_ASSETS, partition="ward", config={"prepare_cohort": once} if once else {})
    events = [event.materialization for event in result.get_asset_materialization_events()]
    pages = {event.asset_key.to_user_string(): event.metadata for event in events}
    return str(pages["raw_images"]["settings"].value), int(str(pages["lung_masks"]["computed"].value))


def test_a_launch_sets_something_for_once_and_the_next_says_that_it_goes_back(house: House) -> None:
    default = "the default (configs/prepare_config.yaml)"
    once = {"segment": {"threshold": 0.3}}
    assert launch(house) == (default, 1)
    assert launch(house) == (default, 0)
    changed = "this launch only: segment.threshold 0.3 (else 0.5)"
    assert launch(house, once) == (f"{default}; {changed}; prepared before with segment.threshold 0.5", 1)
    assert launch(house) == (f"{default}; prepared before with segment.threshold 0.3", 1)
    assert launch(house) == (default, 0)


def test_a_launch_keeps_what_the_cohorts_settings_say_and_changes_only_what_it_names(house: House) -> None:
    text = "segment: {threshold: 0.3}\nlabels: {classes: [normal, pneumonia, tb], map: {tbc: tb}}\n"
    house.store.write("settings/ward.yaml", text.encode())
    own, computed = launch(house)
    assert own.startswith("the cohort's (settings/ward.yaml): labels.classes ")
    assert (own.endswith("segment.threshold 0.3 (else 0.5)"), computed) == (True, 1)
    said, computed = launch(house, {"enhance": {"apply_mask": True}, "labels": {"map": {"no finding": "normal"}}})
    assert computed == 0
    assert "this launch only: labels.map {'no finding': 'normal'} (else {'tbc': 'tb'}), enhance.apply_mask True" in said
    assert open_manifest(house.store, "ward").head.settings["segment"]["threshold"] == 0.3


@pytest.mark.parametrize(
    ("text", "once", "reason"),
    [
        ("sharpness: 1", {}, "settings/ward.yaml is not valid: sharpness: Extra inputs are not permitted. Write them"),
        ("", {"enhance": {"colour": "rgb"}}, "what this launch sets cannot be used: PrepareConfig is not valid"),
        ("", {"segment": {"threshold": 2.0}}, "segment.threshold: Input should be less than 1"),
    ],
)
def test_a_launch_with_settings_that_cannot_be_used_is_refused_in_a_sentence(
    house: House, text: str, once: dict, reason: str
) -> None:
    launch(house)
    before = house.store.read("manifests/ward.jsonl")
    house.store.write("settings/ward.yaml", text.encode())
    result = house.materialize(*STAGE_ASSETS, partition="ward", config={"prepare_cohort": once}, fails=True)
    assert reason in failure_of(result)
    assert house.store.read("manifests/ward.jsonl") == before
