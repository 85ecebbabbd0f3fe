"""A cohort that no model has seen, judged by the champion: what is read, recorded and refused."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from dagster import ExecuteInProcessResult

from penumo_assets.cohort.publish import ManifestHead, dump_manifest, manifest_key
from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.jobs.manifest import ManifestRow, StageOutput
from penumo_assets.metrics.report.content import Report, read_report
from penumo_assets.promotion import read_champion
from penumo_assets.records import ExternalRecord
from penumo_assets_tests.house import House, failure_of, open_house
from penumo_assets_tests.jobs.training_samples import packed_set, tensor
from penumo_assets_tests.registry import add_report, set_training_set

QUICK = {"external_validation": {"evaluation": {"bootstrap": 40}}}
FILMS = 24


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A champion of the cohorts north and south, and a labelled cohort west that landed since."""
    with open_house(tmp_path) as house:
        packed = packed_set(tmp_path / "pack", monkeypatch, salt="s")
        monkeypatch.delenv("PENUMO_OPT_ML")
        digest = json.loads((packed / "dataset.json").read_text())["digest"]
        for path in (path for path in packed.rglob("*") if path.is_file()):
            house.store.upload(path, f"training_set/{digest[:16]}/{path.relative_to(packed).as_posix()}")
        set_training_set(house, digest)
        add_report(house, "resnet34", digest=digest)
        house.materialize("champion_model")
        add_cohort(house, "west")
        yield house


def add_cohort(house: House, cohort: str, positive: str = "pneumonia") -> None:
    rows = []
    for number in range(FILMS):
        key, label = f"npz/{cohort}/1/w{number}.npz", positive if number % 2 else "normal"
        house.store.write(key, npz_bytes(tensor(1000 + number, number % 2 == 1)))
        film = f"w{number}"
        stages = {"npz": StageOutput(key=key, sha256="0" * 64, fingerprint="f")}
        rows.append(
            ManifestRow(
                image_id=film, source=film, source_etag="e", source_bytes=9, patient_id=film, label=label, stages=stages
            )
        )
    house.store.write(manifest_key(cohort), dump_manifest(ManifestHead(schema="penumo/manifest/1"), rows))
    house.instance.add_dynamic_partitions("cohort", [cohort])


def validate(house: House, cohort: str, *, fails: bool = False) -> ExecuteInProcessResult:
    return house.materialize("external_validation", partition=cohort, config=QUICK, fails=fails)


def report_on(house: House, cohort: str) -> Report:
    return read_report(house.store.read(f"{ExternalRecord.read(house.store, cohort).prefix}/report.json"))


def test_the_champion_is_judged_by_itself_on_a_cohort_that_it_has_not_seen(house: House) -> None:
    before = house.store.read("models/champion.json")
    validate(house, "west")
    record, report = ExternalRecord.read(house.store, "west"), report_on(house, "west")
    assert record.model == read_champion(house.store).model
    assert (report.external, report.data.test_looks, report.data.splits.test.images) == ("west", 1, FILMS)
    assert set(report.data.splits.train.groups["cohort"]) == {"north", "south"}
    assert report.versions.mlflow_run_id == record.model.mlflow_run_id
    assert report.versions.config_digest
    sections = {row.item: row.section for row in report.checklist}
    assert (sections[32], sections[33]) == (None, "intended-use")
    rows = pd.read_parquet(io.BytesIO(house.store.read(f"{record.prefix}/predictions.parquet")))
    assert set(rows.loc[rows["split"] == "test", "cohort"]) == {"west"}
    assert set(rows.loc[rows["split"] == "validation", "cohort"]) == {"north", "south"}
    metrics = house.resources["tracking"].client().get_run(record.model.mlflow_run_id).data.metrics
    assert metrics["external/west/test_accuracy"] == record.values["test_accuracy"]
    assert house.store.read("models/champion.json") == before
    assert not house.store.exists("reports/west/current.json")


def test_a_cohort_that_trained_the_champion_is_refused_with_the_remedy(house: House) -> None:
    add_cohort(house, "north")
    message = failure_of(validate(house, "north", fails=True))
    assert "north trained train-1: declare it in dataset.external and train again, or set leave_out" in message


def test_labels_that_the_model_does_not_know_are_refused_by_name(house: House) -> None:
    add_cohort(house, "east", positive="covid")
    assert "labels that are no class: 'covid' (12 films of east)" in failure_of(validate(house, "east", fails=True))


def test_a_champion_whose_training_set_is_gone_says_so(house: House) -> None:
    house.store.delete_folder(f"training_set/{read_champion(house.store).dataset_digest[:16]}")
    assert "the champion's training set, is gone: train again" in failure_of(validate(house, "west", fails=True))
