"""A retired cohort is out of every list until it is brought back; an erasure counts, asks, and can be finished."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from penumo_assets.cohort.retire import bring_back, retire, retired_cohorts
from penumo_assets.instance import open_instance
from penumo_assets.jobs.manifest import STAGE_ASSETS
from penumo_assets.records import RetiredRecord
from penumo_assets_tests.backfills.stub_jobs import StubJobRunner, png
from penumo_assets_tests.cohort.conftest import Desk
from penumo_assets_tests.house import House, failure_of, open_house

REASON = ("--reason", "the ward's contract has ended")


def partitions() -> list[str]:
    with open_instance() as instance:
        return list(instance.get_dynamic_partitions("cohort"))


@pytest.fixture
def ward(desk: Desk) -> Desk:
    """ward-7 landed with settings, and what a preparation leaves; ward-70 beside it."""
    for cohort in ("ward-7", "ward-70"):
        desk.penumo("land", cohort, desk.films("a.png", "b.png"), "--config", desk.file("mine.yaml", ""))
        desk.store.write(f"manifests/{cohort}.jsonl", b'{"schema": "penumo/manifest/1"}\n')
        for folder in ("raw", "masks", "preprocessed", "npz", "predictions"):
            desk.store.write(f"{folder}/{cohort}/one/a", b"x")
    return desk


def below(desk: Desk, cohort: str) -> list[str]:
    """Every object of a cohort but its landing."""
    folders = ("manifests", "settings", "raw", "masks", "preprocessed", "npz", "predictions")
    names = (f"/{cohort}/", f"/{cohort}.")
    return [key for folder in folders for key in desk.keys(folder) if any(name in key for name in names)]


def test_a_retired_cohort_cannot_be_landed_set_or_launched_until_it_is_brought_back(ward: Desk) -> None:
    said = ward.penumo("retire", "ward-7", *REASON)
    assert "ward-7 is retired, since 20" in said
    assert partitions() == ["ward-70"]
    record = RetiredRecord.read(ward.store, "ward-7")
    assert (record.reason, record.erased, bool(record.by)) == (REASON[1], {}, True)
    for command in (
        ["land", "ward-7", ward.films("c.png")],
        ["settings", "ward-7", ward.file("other.yaml", "")],
        ["launch", "group:imaging", "--partition", "ward-7"],
    ):
        said = ward.penumo(*command, fails=True)
        assert f"cohort 'ward-7' was retired on {record.at[:10]} by {record.by} ({REASON[1]}): use another name" in said
    assert len(below(ward, "ward-7")) == 7
    assert "ward-7 is retired" in ward.penumo("retire", "ward-7"), "a second time it says the same"

    ward.penumo("retire", "ward-7", "--undo")
    assert partitions() == ["ward-70", "ward-7"]
    assert ward.keys("retired") == []
    ward.penumo("land", "ward-7", ward.films("c.png"))
    assert "cohort 'ward-7' is not retired" in ward.penumo("retire", "ward-7", "--undo", fails=True)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["nowhere", *REASON], "there is no cohort 'nowhere' to retire (cohorts: none)"),
        (["../x", *REASON], "not a valid cohort name"),
        (["../x", "--undo"], "not a valid cohort name"),
        (["nowhere", "--undo"], "cohort 'nowhere' is not retired"),
    ],
)
def test_what_cannot_be_retired_is_told_in_a_sentence(desk: Desk, command: list[str], reason: str) -> None:
    assert reason in desk.penumo("retire", *command, fails=True)
    assert desk.keys("retired") == []


def test_a_reason_is_asked_for_and_a_run_is_let_end_first(ward: Desk) -> None:
    assert 'say why, without naming a patient: --reason "..."' in ward.penumo("retire", "ward-7", fails=True)
    with open_instance() as instance:
        tags = {"dagster/partition": "ward-7"}
        run = create_run_for_test(instance, status=DagsterRunStatus.STARTED, tags=tags)
    said = ward.penumo("retire", "ward-7", *REASON, fails=True)
    assert f"run {run.run_id[:8]} is at work on cohort 'ward-7': let it end, or terminate it first" in said
    assert sorted(partitions()) == ["ward-7", "ward-70"]
    assert ward.keys("retired") == []


def test_erasing_counts_asks_and_leaves_landing_unless_that_is_agreed_to_as_well(ward: Desk) -> None:
    said = ward.penumo("retire", "ward-7", *REASON, "--erase", answer="n\n", fails=True)
    assert "Remove 7 objects of ward-7 (manifests 1, settings 1, raw 1, masks 1, preprocessed 1, npz 1, pred" in said
    assert "nothing was erased: agree, or add --yes" in said
    assert len(below(ward, "ward-7")) == 7
    said = ward.penumo("retire", "ward-7", "--erase", "--yes")
    assert "landing/ward-7/ stays: 3 objects" in said
    assert below(ward, "ward-7") == []
    assert (len(ward.keys("landing/ward-7")), len(below(ward, "ward-70"))) == (3, 7)
    said = ward.penumo("retire", "ward-7", "--erase", answer="y\ny\n")
    assert "Also the 3 objects that landed, landing/ward-7/?" in said
    assert (ward.keys("landing/ward-7"), len(ward.keys("landing/ward-70"))) == ([], 3)
    record = RetiredRecord.read(ward.store, "ward-7")
    assert (record.erased["npz"], record.erased["landing"], bool(record.erased_at)) == (1, 3, True)
    ward.penumo("retire", "ward-7", "--undo")
    assert partitions() == ["ward-70"], "there is nothing left that could be prepared"
    ward.penumo("land", "ward-7", ward.films("c.png"))


@pytest.mark.parametrize("last", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(6, marks=pytest.mark.slow)])
def test_an_erasure_that_was_killed_is_finished_by_a_second_call(
    ward: Desk, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    real, calls = type(ward.store).delete, iter(range(100))

    def delete(store: object, keys: object) -> None:
        if next(calls) == last:
            raise KeyboardInterrupt
        real(store, keys)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(type(ward.store), "delete", delete)
        ward.penumo("retire", "ward-7", *REASON, "--erase", "--yes", fails=True)
    assert len(below(ward, "ward-7")) == 7 - last
    assert not ward.store.exists("manifests/ward-7.jsonl") or last == 0, "what a manifest names goes after it"
    assert RetiredRecord.read(ward.store, "ward-7").erased_at == ""
    assert "ward-7" not in partitions()
    ward.penumo("retire", "ward-7", "--erase", "--yes")
    assert below(ward, "ward-7") == []
    record = RetiredRecord.read(ward.store, "ward-7")
    assert (sum(record.erased.values()), bool(record.erased_at)) == (7, True)


def test_a_retirement_that_was_killed_holds_and_is_finished_by_a_second_call(
    ward: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DagsterInstance, "delete_dynamic_partition", die)
        ward.penumo("retire", "ward-7", *REASON, fails=True)
    assert "was retired on" in ward.penumo("land", "ward-7", ward.films("c.png"), fails=True)
    ward.penumo("retire", "ward-7")
    assert partitions() == ["ward-70"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as house:
        house.resources["jobs"] = StubJobRunner(storage=house.resources["storage"])
        for cohort in ("kept", "gone"):
            house.store.write(f"landing/{cohort}/a.png", png(1))
        house.instance.add_dynamic_partitions("cohort", ["kept", "gone"])
        yield house


def test_runs_and_trainings_that_name_a_retired_cohort_are_refused(house: House) -> None:
    house.materialize(*STAGE_ASSETS, partition="gone")
    before = house.store.read("manifests/gone.jsonl")
    retire(house.store, house.instance, "gone", "no consent")
    assert retired_cohorts(house.store) == {"gone"}
    house.instance.add_dynamic_partitions("cohort", ["gone"])  # as in another instance on the same root
    for asset, partition, config in (
        (STAGE_ASSETS, "gone", {}),
        (("predictions",), "gone", {}),
        (("training_set",), None, {"training_set": {"cohorts": ["gone"]}}),
        (
            ("lung_segmenter",),
            None,
            {"lung_segmenter": {"source": "retrain", "retrain": {"cohorts": ["gone"]}}},
        ),
    ):
        said = failure_of(house.materialize(*asset, partition=partition, config=config, fails=True))
        assert "cohort 'gone' was retired on" in said
    assert house.store.read("manifests/gone.jsonl") == before
    said = failure_of(house.materialize("training_set", fails=True))
    assert "kept" in said
    assert "gone" not in said
    bring_back(house.store, house.instance, "gone")
    house.materialize(*STAGE_ASSETS, partition="gone")
    assert house.store.read("manifests/gone.jsonl") == before
