"""Instances that share a cohort out: each is given the objects of its own items, and nothing else."""

import json
from pathlib import Path

import pytest

from penumo_assets.jobs.contract import hosts, share
from penumo_assets.resources.compute.sagemaker import settings
from penumo_assets.resources.compute.sagemaker.inputs import write_inputs
from penumo_assets.resources.compute.spec import JobInput, JobSpec
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.resources.bench import sagemaker_bench

FILMS = ("a/x.txt", "b/ü #1?.txt", "c+d.txt")


def test_each_host_gets_the_objects_of_its_items_and_what_all_need(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "SHARING_PROGRAMS", ("probe",))
    bench = sagemaker_bench(emulator, tmp_path, monkeypatch, prepare_instance_count=2)
    for name in FILMS:
        bench.store.write(f"landing/c/{name}", b"film")
    bench.store.write("weights/w.txt", b"weights")
    films = JobInput.of_items("landing/c", [[FILMS[0]], [FILMS[1]], [FILMS[2]], []])
    assert films.names == tuple(sorted(FILMS))
    result = bench.run("list", inputs={"films": films, "weights": JobInput("weights", ("w.txt",))})
    assert sorted(result.values["found"]) == [["algo-1", FILMS[0], FILMS[2]], ["algo-2", FILMS[1]]]
    (request,) = [call for call in emulator.calls("CreateProcessingJob") if call.name == result.job_name]
    assert {item["InputName"] for item in request.params["ProcessingInputs"]} == {"code", "notes", "share", "weights"}


def test_the_lists_name_what_each_program_works_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names' order as text: algo-10 comes before algo-2."""
    store, items = FileStore(tmp_path), [f"{number}.png" for number in range(30)]
    spec = JobSpec(
        "processing",
        "prepare",
        "films",
        "ward",
        inputs={"landing": JobInput.of_items("landing/w", [[i] for i in items])},
    )
    write_inputs(store, spec, "a-job", JobInput("code", ("start.py",)), hosts=11)
    monkeypatch.setenv("SM_HOSTS", json.dumps([f"algo-{number}" for number in range(1, 12)]))
    for number in range(1, 12):
        monkeypatch.setenv("SM_CURRENT_HOST", f"algo-{number}")
        host, names = hosts()
        listed = store.read_json(f"inputs/a-job/share/{host}.json")["landing"]
        assert listed["prefix"] == f"{store.uri('landing/w')}/"
        assert listed["names"] == sorted(share(items, names.index(host), len(names)))
