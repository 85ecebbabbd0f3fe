"""Digests that others can see, of what names a patient: nobody without the key can test by them whom they guess."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penumo_assets.assets.prepare import _prepare_spec
from penumo_assets.assets.segmenter import _train_spec
from penumo_assets.cohort import plan
from penumo_assets.cohort.landing import Label, LandedFile, Landing
from penumo_assets.cohort.plan import PlanSettings, PreparePlan, plan_cohort
from penumo_assets.configs.prepare import Deidentify, PrepareConfig
from penumo_assets.configs.segmenter import RetrainConfig
from penumo_assets.jobs.manifest import STAGES
from penumo_assets.jobs.prepare.work import key_id
from penumo_assets.records import SegmenterRecord
from penumo_assets.resources.compute.spec import JobSpec

pytestmark = pytest.mark.trust

KEYS = ("a key for phantoms only", "b key for phantoms only")
PATIENT = "MRN-482913"
NAMES = ("0123.dcm", "0123.png", "0123.jpeg", "0123")


def planned(name: str, patient: str = PATIENT, mode: Deidentify = Deidentify.dicom) -> PreparePlan:
    """What is planned for a landing of one film with the key of the environment."""
    labels = {name: Label(name, patient_id=patient, label="normal")}
    landing = Landing("ward", (LandedFile(name, "etag", 1000, f"images/{PATIENT}.dcm"),), {}, labels)
    config = PrepareConfig.parse({"decode": {"deidentify": mode.value}})
    return plan_cohort(landing, [], PlanSettings(config, "weights", key_id(), STAGES))


def fingerprint_of(*what: Any) -> str:
    return str(planned(*what).items[0].row.told_by)


def each_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for key in KEYS:
        monkeypatch.setenv("PENUMO_DEID_KEY", key)
        yield key


@pytest.mark.parametrize("mode", Deidentify)
@pytest.mark.parametrize("name", NAMES)
def test_a_fingerprint_is_keyed_whatever_a_files_name_ends_in(
    name: str, mode: Deidentify, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[dict[str, Any]] = []
    digest = plan.fingerprint

    def witness(stage: str, settings: dict[str, Any], upstream: str) -> str:
        hashed.append(settings)
        return digest(stage, settings, upstream)

    monkeypatch.setattr(plan, "fingerprint", witness)
    found = [fingerprint_of(name, PATIENT, mode) for _ in each_key(monkeypatch)]
    assert len(set(found)) == len(KEYS)
    assert PATIENT not in json.dumps(hashed)
    assert len([settings["key"] for settings in hashed if settings.get("key")]) == len(KEYS)


def test_another_patient_of_the_same_film_is_still_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in each_key(monkeypatch):
        assert fingerprint_of("0123.png") == fingerprint_of("0123.png")
        assert fingerprint_of("0123.png") != fingerprint_of("0123.png", "MRN-482914")


def prepare_spec(monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.setattr(plan, "_redacted_id", lambda patient, key: "")
    monkeypatch.setattr(plan, "fingerprint", lambda *what: "the same under any key")
    return _prepare_spec(
        planned("0123.dcm"), PrepareConfig(), "ward", SegmenterRecord(prefix="", name="", sha256="weights")
    )


def segmenter_spec(monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    return _train_spec(RetrainConfig(), [{"file": "a.png", "mask": [f"ward/masks/{PATIENT}.png"]}], {}, ())


@pytest.mark.parametrize("make", [prepare_spec, segmenter_spec])
def test_a_job_that_is_told_landed_names_has_a_keyed_name(
    make: Callable[[pytest.MonkeyPatch], JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = []
    for key in each_key(monkeypatch):
        specs.append(make(monkeypatch))
        assert specs[-1].job_name("penumo", 1) == make(monkeypatch).job_name("penumo", 1)
        assert key_id() not in repr(specs[-1])
        assert key not in key_id()
    assert len({spec.job_name("penumo", 1) for spec in specs}) == len(KEYS)
    assert PATIENT in str(specs[0].inputs), "the job has something to hide"
