"""Both stores keep the same promises: one suite runs against a folder and against a bucket."""

from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from penumo_assets.resources.s3 import S3Store
from penumo_assets.resources.storage import FileStore, ObjectMissing, ObjectStore, StorageError, open_store


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if request.param == "file":
        yield FileStore(tmp_path / "a folder")
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="films", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield S3Store("films", "below/here", client)


def test_what_is_written_is_read_back(store: ObjectStore) -> None:
    store.write("raw/a/one.png", b"1")
    store.write("raw/a/one.png", b"12")
    assert store.read("raw/a/one.png") == b"12"
    assert store.exists("raw/a/one.png")
    assert not store.exists("raw/a")


def test_an_absent_object_is_named(store: ObjectStore, tmp_path: Path) -> None:
    for call in (
        lambda: store.read("raw/none"),
        lambda: store.download("raw/none", tmp_path / "x"),
        lambda: store.copy("raw/none", "raw/copy"),
    ):
        with pytest.raises(StorageError, match="raw/none"):
            call()
    with pytest.raises(ObjectMissing):
        store.read("raw/none")
    store.delete(["raw/none"])


def test_listing_is_in_key_order_and_stays_in_the_folder(store: ObjectStore) -> None:
    for key in ("raw/a/2", "raw/a/10", "raw/a.b/1", "raw/a/b/1", "rawer/a/1"):
        store.write(key, b"x")
    assert [info.key for info in store.list_objects("raw")] == ["raw/a.b/1", "raw/a/10", "raw/a/2", "raw/a/b/1"]
    assert [info.key for info in store.list_objects("raw/a")] == ["raw/a/10", "raw/a/2", "raw/a/b/1"]
    assert store.folders("raw") == ["a", "a.b"]
    assert list(store.list_objects("nowhere")) == []
    assert store.folders("nowhere") == []


def test_an_entity_tag_changes_with_the_content(store: ObjectStore) -> None:
    store.write("a/x", b"one")
    before = next(store.list_objects("a"))
    store.write("a/x", b"three")
    after = next(store.list_objects("a"))
    assert before.etag != after.etag
    assert (before.size, after.size) == (3, 5)


def test_copies_and_folders_move_whole(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "made" / "deep").mkdir(parents=True)
    (tmp_path / "made" / "deep" / "x").write_bytes(b"x")
    (tmp_path / "made" / "y").write_bytes(b"y")
    assert store.adopt_folder(tmp_path / "made", "jobs/1/output") == ["deep/x", "y"]
    store.copy_all([("jobs/1/output/y", "npz/y"), ("jobs/1/output/deep/x", "npz/x")])
    store.delete_folder("jobs/1")
    assert [info.key for info in store.list_objects("npz")] == ["npz/x", "npz/y"]
    assert list(store.list_objects("jobs")) == []
    store.download_objects("npz", ["x", "y"], tmp_path / "got")
    assert (tmp_path / "got" / "x").read_bytes() == b"x"


def test_a_replaced_object_leaves_its_copies_alone(store: ObjectStore) -> None:
    store.write("a/x", b"old")
    store.copy("a/x", "b/x")
    store.write("a/x", b"new")
    assert store.read("b/x") == b"old"


def test_an_uploaded_file_and_its_object_do_not_share_bytes(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "film.png"
    source.write_bytes(b"old")
    store.upload(source, "landing/a/film.png")
    with source.open("r+b") as file:
        file.write(b"new")
    assert store.read("landing/a/film.png") == b"old"


def test_a_read_can_be_bounded(store: ObjectStore) -> None:
    store.write("a/x", b"12345")
    assert store.read("a/x", max_bytes=5) == b"12345"
    with pytest.raises(StorageError, match="larger than the 4 bytes"):
        store.read("a/x", max_bytes=4)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../../b", "a//b", "./a", "a\\b", "a/\n"])
def test_a_key_that_could_leave_the_root_is_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(StorageError, match="not a valid object key"):
        store.write(key, b"x")


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    store = FileStore(tmp_path / "root")
    store.write("landing/a/x", b"x")
    (store.root / "landing" / "a" / "link").symlink_to(outside)
    (store.root / "landing" / "b").symlink_to(outside)
    assert [info.key for info in store.list_objects("landing")] == ["landing/a/x"]
    assert store.folders("landing") == ["a"]


def test_roots_are_folders_and_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store(str(tmp_path)), FileStore)
    assert open_store((tmp_path / "a b").as_uri()).uri("x/y") == (tmp_path / "a b").as_uri() + "/x/y"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert open_store("s3://films/below/").uri("x") == "s3://films/below/x"
    with pytest.raises(StorageError, match="expected a folder"):
        open_store("ftp://host/x")
    with pytest.raises(StorageError, match="names no bucket"):
        open_store("s3:///x")
