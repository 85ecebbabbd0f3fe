"""Classes are declared: labels are led to them by a map, what is no class is named, and a corrected label is news."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, ExecuteInProcessResult, Failure
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from penumo_assets.cohort.labels import parse_labels
from penumo_assets.cohort.publish import ManifestHead, dump_manifest, manifest_key, open_manifest
from penumo_assets.cohort.training_items import ITEMS, ItemsRecord, cohort_items
from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.prepare import LabelsConfig, PrepareConfig
from penumo_assets.definitions import build_definitions
from penumo_assets.jobs.manifest import STAGE_ASSETS
from penumo_assets.records import TrainingSetRecord
from penumo_assets_tests.backfills.stub_jobs import StubJobRunner, png
from penumo_assets_tests.house import House, failure_of, open_house
from penumo_assets_tests.in_process import resources_in_process
from penumo_assets_tests.registry import run_check

MAP = {"bacterial": "pneumonia", "virus": "pneumonia", "no finding": "normal"}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as house:
        house.resources["jobs"] = StubJobRunner(storage=house.resources["storage"])
        yield house


def labels_csv(labels: Sequence[str]) -> bytes:
    rows = "".join(f"{number}.png,P{number},{label}\n" for number, label in enumerate(labels))
    return f"file,patient_id,label\n{rows}".encode()


def land(house: House, cohort: str, *labels: str) -> None:
    house.store.write(f"landing/{cohort}/labels.csv", labels_csv(labels))
    for number in range(len(labels)):
        house.store.write(f"landing/{cohort}/{number}.png", png(number))
    house.instance.add_dynamic_partitions("cohort", [cohort])


def prepare(house: House, cohort: str, **config: Any) -> ExecuteInProcessResult:
    return house.materialize(*STAGE_ASSETS, partition=cohort, config={"prepare_cohort": config})


def version_of(house: House, asset: str) -> str:
    event = house.instance.get_latest_materialization_event(AssetKey(asset))
    assert event
    assert event.asset_materialization
    return (event.asset_materialization.tags or {})["dagster/data_version"]


def test_a_map_leads_labels_to_classes_and_an_unknown_word_is_named() -> None:
    config = LabelsConfig.parse({"map": MAP, "file_names": "keep"})
    words = ["Bacterial", "virus", "No Finding", "normal", "", "fibrosis", "fibrosis", "Fibrosis", "Jane Doe"]
    table = "file,patient_id,label\n" + "".join(f"{n}.png,P{n},{word}\n" for n, word in enumerate(words))
    labels = list(parse_labels(table.encode(), "ward", config, None).values())
    assert [label.label for label in labels[:5]] == ["pneumonia", "pneumonia", "normal", "normal", None]
    assert [label.problem and label.problem[0] for label in labels] == [None] * 5 + ["unknown_label"] * 4
    assert {label.problem[1] for label in labels[5:8] if label.problem} == {
        "labels.csv gives the label 'fibrosis', of 3 files, that is none of: normal, pneumonia (see labels.classes and "
        "labels.map)"
    }
    assert "jane" not in str(labels[8]).lower()


def test_settings_of_earlier_versions_name_their_classes() -> None:
    settings = PrepareConfig.parse({"labels": {"allowed": ["normal", "virus"]}})
    assert settings.labels.classes == ["normal", "virus"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"map": {"virus": "pneumnia"}}, "map leads to pneumnia"),
        ({"map": {"Virus": "pneumonia"}}, "lower case, without spaces around them: Virus"),
    ],
)
def test_a_map_that_leads_nowhere_is_refused(values: dict, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        LabelsConfig.parse(values)


def test_a_label_that_is_no_class_is_named_and_a_map_makes_it_one(house: House, monkeypatch) -> None:
    land(house, "ward", "normal", "normal", "virus", "virus")
    prepare(house, "ward", labels={"classes": []})
    message = failure_of(house.materialize("training_set", fails=True))
    assert "labels that are no class: 'virus' (2 films of ward). Declared are normal, pneumonia" in message
    packed: list[str] = []

    def run_job(context: Any, jobs: Any, spec: Any) -> None:
        for name in spec.inputs["items"].names:
            packed.extend(house.store.read(f"{ITEMS}/{name}").decode().splitlines())
        raise Failure("as far as this test goes")

    monkeypatch.setattr("penumo_assets.assets.dataset.run_job", run_job)
    config = {"training_set": {"dataset": {"map": {"virus": "pneumonia"}}}}
    assert failure_of(house.materialize("training_set", config=config, fails=True)) == "as far as this test goes"
    assert sorted('"label": "pneumonia"' in line for line in packed) == [False, False, True, True]


def test_a_class_without_a_film_is_refused(house: House) -> None:
    land(house, "ward", "normal", "normal")
    prepare(house, "ward")
    assert "no film of class pneumonia" in failure_of(house.materialize("training_set", fails=True))


def test_a_corrected_label_is_another_version_and_computes_nothing(house: House, monkeypatch) -> None:
    land(house, "ward", "normal", "pneumonia")
    prepare(house, "ward")
    before = {asset: version_of(house, asset) for asset in STAGE_ASSETS}
    monkeypatch.setattr(StubJobRunner, "run", lambda *_: pytest.fail("a job ran"))
    prepare(house, "ward")
    assert {asset: version_of(house, asset) for asset in STAGE_ASSETS} == before
    house.store.write("landing/ward/labels.csv", labels_csv(["normal", "normal"]))
    prepare(house, "ward")
    assert all(version_of(house, asset) != before[asset] for asset in STAGE_ASSETS)


def test_labels_that_are_corrected_late_make_the_training_set_stale_and_compute_no_image(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Dagster's pages show it: fresh, then stale because of this cohort, then fresh."""
    packing = replace(house, resources=resources_in_process())
    land(house, "ward", *["normal", "pneumonia"] * 8)
    prepare(house, "ward")
    packing.materialize("training_set")
    monkeypatch.setattr(StubJobRunner, "run", lambda *_: pytest.fail("a job ran"))
    prepare(house, "ward")
    assert staleness(house) == (StaleStatus.FRESH, [])
    house.store.write("landing/ward/labels.csv", labels_csv(["pneumonia", "normal"] * 8))
    result = prepare(house, "ward")
    computed = [event.metadata["computed"].value for event in result.asset_materializations_for_node("prepare_cohort")]
    assert computed == [0] * len(STAGE_ASSETS)
    assert staleness(house) == (StaleStatus.STALE, [("npz_tensors", "ward", "has a new dependency data version")])
    packing.materialize("training_set")
    assert staleness(house) == (StaleStatus.FRESH, [])


def staleness(house: House) -> tuple[StaleStatus, list[tuple[str, str | None, str]]]:
    """What Dagster says of `training_set`: its status, and which partition of which asset it is for what reason."""
    graph, key = build_definitions().resolve_asset_graph(), AssetKey("training_set")
    resolver = CachingStaleStatusResolver(house.instance, graph, LoadingContextForTest(house.instance))
    causes = [
        (cause.dependency.asset_key.to_user_string(), cause.dependency.partition_key, cause.reason)
        for cause in resolver.get_stale_causes(key)
        if cause.dependency
    ]
    return resolver.get_status(key), causes


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({}, True),
        ({"settings": {"enhance": {"apply_mask": True}}}, False),
        ({"key": "another"}, False),
        ({"segmenter": "another"}, False),
        ({"segmenter": None, "key": None}, True),
        ({"settings": {"labels": {"classes": []}}}, True),
    ],
)
def test_cohorts_prepared_otherwise_stop_the_training_set(house: House, changed: dict, passes: bool) -> None:
    for cohort in ("east", "west"):
        land(house, cohort, "normal", "pneumonia")
        prepare(house, cohort)
    manifest = open_manifest(house.store, "west")
    values = manifest.head.model_dump(by_alias=True) | changed
    house.store.write(manifest_key("west"), dump_manifest(ManifestHead(**values), manifest.rows))
    record = TrainingSetRecord(prefix="training_set/d", names=(), digest="d", cohorts=("east", "west"))
    record.write(house.store)
    items = cohort_items(house.store, record.cohorts, {}, {})
    ItemsRecord(cohorts=items).write(house.store, record.prefix)
    assert run_check(house, "same_preparation") is passes
