"""From any id that an answer prints to the film that landed, and back, for who may read landing and holds the key."""

import json
import logging

import pytest

from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.plan import PlanSettings, plan_cohort
from penumo_assets.cohort.publish import ManifestHead, dump_manifest, manifest_key
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.deidentify import pseudonym
from penumo_assets.jobs.manifest import STAGES, ManifestRow, StageOutput
from penumo_assets.jobs.prepare.work import key_fingerprint, key_id
from penumo_assets.resources.storage.object_store import StorageError
from penumo_assets_tests.cohort.conftest import Desk

KEY = "a key for phantoms only"
LABELS = "file,patient_id,label\nimages/DOE_JANE.dcm,4711,normal\nimages/b.png,P2,pneumonia\nlost.png,P3,normal\n"


def prepared(desk: Desk, cohort: str, monkeypatch: pytest.MonkeyPatch, key: str = KEY) -> dict[str, ManifestRow]:
    """A cohort with one accepted DICOM film, a rejected picture and a film that never landed: rows by landed name."""
    monkeypatch.setenv("PENUMO_DEID_KEY", key)
    for name in ("images/DOE_JANE.dcm", "images/b.png"):
        desk.store.write(f"landing/{cohort}/{name}", cohort.encode())
    desk.store.write(f"landing/{cohort}/labels.csv", LABELS.encode())
    config = PrepareConfig()
    landing = read_landing(desk.store, cohort, config.labels, key.encode())
    names = {file.source: file.landed_name for file in landing.files}
    names |= {label.source: label.name for label in landing.labels.values()}
    plan = plan_cohort(landing, [], PlanSettings(config, "weights", key_id(), STAGES))
    rows = {names[row.source]: row for row in (*plan.rows, *(item.row for item in plan.items))}
    jane = rows["images/DOE_JANE.dcm"]
    jane.patient_id = pseudonym("4711", key.encode())
    jane.stages["npz"] = StageOutput(key=f"npz/{cohort}/one/{jane.patient_id}.npz", sha256="0", fingerprint="0")
    rows["images/b.png"].patient_id = "P2"
    rows["images/b.png"].reject("raw", "truncated", "the file ends early")
    head = ManifestHead(schema="penumo/manifest/1", key=key_fingerprint())
    desk.store.write(manifest_key(cohort), dump_manifest(head, rows.values()))
    return rows


def test_every_id_leads_to_the_film_and_the_film_to_every_id(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = prepared(desk, "ward-7", monkeypatch)
    jane, broken = rows["images/DOE_JANE.dcm"], rows["images/b.png"]
    line = "\t".join(["ward-7", "images/DOE_JANE.dcm", jane.source, jane.image_id, jane.patient_id or "", ""])
    for asked in (
        jane.image_id,
        jane.patient_id,
        jane.source,
        f"ward-7/one/{jane.patient_id}.npz",
        f"npz/ward-7/an earlier publication/{jane.patient_id}.npz",
        f"raw/ward-7/one/{jane.image_id}.png",
        f"predictions/ward-7/job/overlays/{jane.patient_id}.png",
        "4711",
        "images/DOE_JANE.dcm",
        "images\\DOE_JANE.dcm",
        "landing/ward-7/images/DOE_JANE.dcm",
    ):
        assert desk.penumo("lookup", str(asked)) == f"{line}\n", asked
    said = desk.penumo("lookup", broken.image_id, "lost.png").splitlines()
    assert [each.split("\t")[1] for each in said] == ["images/b.png", "lost.png"]
    assert said[0].endswith("truncated: the file ends early")
    assert "missing_file" in said[1]
    told = [record.getMessage() for record in caplog.records if record.name != "werkzeug"]  # the bucket's own log
    assert not [message for message in told if "DOE_JANE" in message]


def test_films_are_listed_as_csv_and_json_by_both_commands(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    jane = prepared(desk, "ward-7", monkeypatch)["images/DOE_JANE.dcm"]
    said = json.loads(desk.penumo("lookup", "4711", "--json"))
    assert (said["cohort"], said["name"], said["image_id"]) == ("ward-7", "images/DOE_JANE.dcm", jane.image_id)
    header, line = desk.penumo("lookup", "4711", "--csv").splitlines()
    assert header == "cohort,name,source,image_id,patient_id,rejected"
    assert line.startswith("ward-7,images/DOE_JANE.dcm,")
    rejected = [json.loads(each)["name"] for each in desk.penumo("rejected", "ward-7", "--json").splitlines()]
    assert rejected == ["images/b.png", "lost.png"]
    assert desk.penumo("rejected", "ward-7", "--csv").splitlines()[0] == "name,source,rejected"


def test_an_unknown_id_is_told_and_the_others_are_found(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(desk, "ward-7", monkeypatch)
    said = desk.penumo("lookup", "4711", "nobody\x1b[31m", fails=True)
    assert "images/DOE_JANE.dcm" in said
    assert "Error: no film is known by nobody\\x1b[31m\n" in said


@pytest.mark.parametrize(("key", "how"), [("quite another key of ours", "with another"), ("", "with another")])
def test_another_key_finds_no_name_and_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch, key: str, how: str) -> None:
    jane = prepared(desk, "ward-7", monkeypatch)["images/DOE_JANE.dcm"]
    monkeypatch.setenv("PENUMO_DEID_KEY", key)
    for command in (["lookup", jane.image_id], ["rejected", "ward-7"]):
        said = desk.penumo(*command, fails=True)
        assert f"cohort 'ward-7' was prepared {how} PENUMO_DEID_KEY: set it as it was" in said
    said = desk.penumo("lookup", "images/DOE_JANE.dcm", fails=True)
    assert "no film is known by images/DOE_JANE.dcm; with another PENUMO_DEID_KEY than the present one: ward-7" in said


def test_who_may_not_read_landing_is_told_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    jane = prepared(desk, "ward-7", monkeypatch)["images/DOE_JANE.dcm"]
    listed = type(desk.store).list_objects

    def refuse(store: object, prefix: str, after: str = "") -> object:
        if prefix.startswith("landing"):
            raise StorageError(f"{prefix}: S3 answered AccessDenied")
        return listed(store, prefix, after)  # type: ignore[arg-type]

    monkeypatch.setattr(type(desk.store), "list_objects", refuse)
    assert "Error: landing/ward-7: S3 answered AccessDenied" in desk.penumo("lookup", jane.image_id, fails=True)


def test_a_patient_is_found_in_every_cohort(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for cohort in ("ward-7", "ward-8"):
        prepared(desk, cohort, monkeypatch)
    said = desk.penumo("lookup", "4711").splitlines()
    assert [line.split("\t")[0] for line in said] == ["ward-7", "ward-8"]
    assert len(desk.penumo("lookup", "ward-8/one/" + said[0].split("\t")[4] + ".npz").splitlines()) == 1
