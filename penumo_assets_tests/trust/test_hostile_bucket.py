"""What a sender can do to the objects it lands in a bucket, and a folder cannot: it costs that object alone."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.lookup import rejected_files
from penumo_assets.cohort.plan import PlanSettings, PreparePlan, plan_cohort
from penumo_assets.cohort.publish import open_manifest, plan_publication, publish
from penumo_assets.configs.prepare import FileNames, LabelsConfig, PrepareConfig
from penumo_assets.jobs.manifest import STAGES
from penumo_assets.resources.storage.object_store import StorageError
from penumo_assets.resources.storage.s3 import PART_BYTES, S3Store
from penumo_assets_tests.resources.s3_server import S3Server, lead_to, running_s3

pytestmark = pytest.mark.trust

NAME = "DOE_JANE_1931-02-13"
FILM = b"film"
WRONG = {"Metadata": {"penumo-sha256": "0" * 64}}
LABELS = LabelsConfig(file_names=FileNames.keep)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with running_s3() as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    lead_to(server, monkeypatch, "films", "eu-central-1")
    return S3Store("films", "below")


def send(key: str, body: bytes = FILM, **headers: Any) -> None:
    boto3.client("s3").put_object(Bucket="films", Key=f"below/{key}", Body=body, **headers)


def plan(bucket: S3Store) -> PreparePlan:
    return plan_cohort(read_landing(bucket, "ward", LABELS, None), [], PlanSettings(PrepareConfig(), "w", "k", STAGES))


def test_what_a_sender_writes_of_its_object_keeps_no_cohort_from_its_films(bucket: S3Store, tmp_path: Path) -> None:
    films = {
        f"{NAME}.dcm": (FILM, WRONG),
        "large.dcm": (b"f" * (PART_BYTES + 1), WRONG),
        "named.dcm": (FILM, {"ContentDisposition": "attachment; filename=Müller.dcm"}),
        "kind.dcm": (FILM, {"ContentType": "é"}),
        "large named.dcm": (b"g" * (PART_BYTES + 1), {"CacheControl": "é"}),
        "good.dcm": (FILM, {}),
    }
    for name, (body, headers) in films.items():
        send(f"landing/ward/{name}", body, **headers)
    bucket.download_objects("landing/ward", films, tmp_path / "got")
    for name, (body, _) in films.items():
        assert (tmp_path / "got" / name).read_bytes() == body
        assert bucket.read(f"landing/ward/{name}") == body
    assert {path.name for path in (tmp_path / "got").iterdir()} == set(films)
    with pytest.raises(StorageError, match=r"landing/ward/… is larger than the 3 bytes"):
        bucket.read("landing/ward/named.dcm", 3)


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_object_is_rejected_by_name_and_the_rest_goes_on(bucket: S3Store, storage_class: str) -> None:
    send("landing/ward/a.png")
    send("landing/ward/b.png", StorageClass=storage_class)
    send("landing/ward/c.png", StorageClass="GLACIER_IR")
    found = plan(bucket)
    assert [item.row.source for item in found.items] == ["a.png", "c.png"]
    assert [(row.source, row.code) for row in found.rows] == [("b.png", "archived")]
    send("landing/ward/labels.csv", b"file,patient_id,label\n", StorageClass=storage_class)
    with pytest.raises(LandingError, match=r"labels\.csv of cohort 'ward' is archived"):
        plan(bucket)


def test_archived_films_and_masks_are_told_by_name_to_who_may_read_landing(bucket: S3Store) -> None:
    send("landing/ward/good.png")
    send("landing/ward/b.png", StorageClass="GLACIER")
    send("landing/ward/masks/good.png", StorageClass="GLACIER")
    settings = PlanSettings(PrepareConfig(), "w", "k", STAGES)
    landing, base = read_landing(bucket, "ward", LabelsConfig(), None), open_manifest(bucket, "ward")
    found = plan_cohort(landing, [], settings)
    assert [item.landed for item in found.items] == ["good.png"]
    rows = replace(found, items=())  # what a job would make of the film is not of interest here
    publish(bucket, base, plan_publication(landing, rows, settings, base, [], None))
    told = [(item.name, item.rejected.split(":")[0]) for item in rejected_files(bucket, "ward", None)]
    assert told == [("b.png", "archived"), ("masks/good.png", "archived")]


def test_a_restored_object_is_read(bucket: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As S3 lists them; the server of these tests does not tell what was restored."""
    item = {"Key": "below/landing/ward/a.png", "Size": 4, "ETag": '"e"', "StorageClass": "GLACIER"}
    restored = {"IsRestoreInProgress": False, "RestoreExpiryDate": datetime(2026, 1, 1, tzinfo=UTC)}
    page = {"Contents": [item, {**item, "RestoreStatus": {"IsRestoreInProgress": True}}]}
    page["Contents"].append({**item, "RestoreStatus": restored})
    monkeypatch.setattr(bucket, "_pages", lambda prefix, **options: iter([page]))
    assert [info.archived for info in bucket.list_objects("landing")] == [True, True, False]


def test_a_byte_of_a_landed_object_that_changes_on_its_way_is_still_read_again(
    bucket: S3Store, server: S3Server, tmp_path: Path
) -> None:
    bucket.write("landing/ward/a.png", FILM)
    server.fail("GET", "flip")
    assert bucket.read("landing/ward/a.png") == FILM
    server.fail("GET", "flip")
    bucket.download("landing/ward/a.png", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == FILM


def test_outside_landing_a_wrong_digest_is_refused(bucket: S3Store, tmp_path: Path) -> None:
    send("raw/ward/one.png", **WRONG)
    for ask in (bucket.read, lambda key: bucket.download(key, tmp_path / "one.png")):
        with pytest.raises(StorageError, match=r"raw/ward/one\.png: its bytes are not those that were stored"):
            ask("raw/ward/one.png")
    assert not (tmp_path / "one.png").exists()


def test_a_name_that_is_the_folder_of_others_is_rejected_and_the_others_are_taken(
    bucket: S3Store, tmp_path: Path
) -> None:
    folders = ("a.png", "deep", "deep/er", "masks/good.png")
    films = ("a.png/b.png", "a.png0", "a.png!.png", "deep/er/c.png", "good.png", "labels.csv/d.png")
    for name in (*folders, *films, "masks/good.png/e.png", "masks/c.png"):
        send(f"landing/ward/{name}")
    send("landing/ward/labels.csv", b"file,patient_id,label\n")
    planned = plan(bucket)
    rejected = {row.source: (row.stage, row.code) for row in planned.rows}
    alone = {"masks/good.png/e.png": ("landing", "unpaired_mask")}
    assert rejected == dict.fromkeys(folders, ("landing", "unsafe_name")) | alone
    reasons = [row.reason or "" for row in planned.rows if row.source not in alone]
    assert all("folder of other files" in reason for reason in reasons)
    truths = {item.row.source: item.truths for item in planned.items}
    assert truths == dict.fromkeys(films, ()) | {"deep/er/c.png": ("masks/c.png",)}
    needed = [name for item in planned.items for name in (item.landed, *item.truths)]
    bucket.download_objects("landing/ward", needed, tmp_path / "got")
    assert all((tmp_path / "got" / name).read_bytes() == FILM for name in needed)
