"""Both stores keep the same promises: one suite runs against a folder and against a bucket."""

import errno
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Thread

import boto3
import pytest

from penumo_assets.resources.profile import root_store
from penumo_assets.resources.storage import s3 as s3_module
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import ObjectChanged, ObjectMissing, ObjectStore, StorageError
from penumo_assets.resources.storage.root import open_store
from penumo_assets.resources.storage.s3 import PART_BYTES, S3Store
from penumo_assets_tests.resources.s3_server import S3Server, lead_to, running_s3

REGION = "eu-central-1"
KMS_KEY = "arn:aws:kms:eu-central-1:123456789012:key/0f3c"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server with an empty bucket ``films``, and the environment that leads to it."""
    lead_to(s3_server, monkeypatch, "films", REGION)
    return s3_server


@pytest.fixture
def bucket(s3: S3Server) -> S3Store:
    return S3Store("films", "below/here")


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return FileStore(tmp_path / "a folder") if request.param == "file" else request.getfixturevalue("bucket")


def test_what_is_written_is_read_back(store: ObjectStore) -> None:
    store.write("raw/a/one.png", b"1")
    store.write("raw/a/one.png", b"12")
    assert store.read("raw/a/one.png") == b"12"
    assert store.exists("raw/a/one.png")
    assert not store.exists("raw/a")


def test_an_object_is_replaced_only_by_those_who_have_read_it_as_it_is(store: ObjectStore) -> None:
    store.swap("manifests/w", b"first", None)
    with pytest.raises(ObjectChanged, match="manifests/w"):
        store.swap("manifests/w", b"too late", None)
    data, version = store.read_version("manifests/w")
    assert data == b"first"
    store.swap("manifests/w", b"second", version)
    for stale in (version, None):
        with pytest.raises(ObjectChanged):
            store.swap("manifests/w", b"too late", stale)
    assert store.read("manifests/w") == b"second"
    with pytest.raises(StorageError):
        store.swap("manifests/gone", b"x", version)
    assert not store.exists("manifests/gone")


def test_of_many_who_replace_the_same_version_one_succeeds(store: ObjectStore) -> None:
    store.swap("manifests/w", b"first", None)
    version = store.read_version("manifests/w")[1]

    def attempt(number: int) -> bytes | None:
        try:
            store.swap("manifests/w", b"by %d" % number, version)
        except ObjectChanged:
            return None
        return b"by %d" % number

    with ThreadPoolExecutor(8) as pool:
        (winner,) = [done for done in pool.map(attempt, range(8)) if done]
    assert store.read("manifests/w") == winner


@pytest.mark.parametrize("fault", ["lost", "reset", "SlowDown", "InternalError"])
def test_a_replacement_that_a_fault_interrupts_is_carried_out_once(s3: S3Server, bucket: S3Store, fault: str) -> None:
    bucket.swap("manifests/w", b"first", None)
    version = bucket.read_version("manifests/w")[1]
    s3.fail("PUT", fault)
    bucket.swap("manifests/w", b"second", version)
    assert s3.faults[0].times == 0
    assert bucket.read("manifests/w") == b"second"


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


@pytest.mark.parametrize(
    "name", ["a b", "ä é", "100%", "x%41y", "a#b?c", "a+b&c=d", "[1]{2}", "a'b\"c", "日本.dcm", "..."]
)
def test_any_readable_name_is_kept_as_it_is(store: ObjectStore, name: str) -> None:
    store.write(f"landing/w/{name}", b"x")
    store.copy(f"landing/w/{name}", f"raw/w/{name}")
    assert store.read(f"raw/w/{name}") == b"x"
    assert [info.key for info in store.list_objects("landing/w")] == [f"landing/w/{name}"]


def test_an_empty_object_comes_and_goes(store: ObjectStore, tmp_path: Path) -> None:
    store.write("landing/w/_COMPLETE", b"")
    store.download("landing/w/_COMPLETE", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == store.read("landing/w/_COMPLETE") == b""


def test_a_large_object_keeps_its_bytes(store: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom(2 * PART_BYTES + 12345)
    (tmp_path / "model").write_bytes(content)
    store.upload(tmp_path / "model", "models/m")
    store.download("models/m", tmp_path / "deep" / "got")
    assert (tmp_path / "deep" / "got").read_bytes() == content
    store.write("models/w", content)
    assert store.read("models/w") == content
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["got"]


def test_readers_see_the_old_object_or_the_new_one(store: ObjectStore) -> None:
    versions = [bytes([i]) * 200_000 for i in range(4)]
    store.write("a/current.json", versions[0])
    writer = Thread(target=lambda: [store.write("a/current.json", version) for version in versions])
    writer.start()
    reads = [store.read("a/current.json")]
    while writer.is_alive():
        reads.append(store.read("a/current.json"))
    writer.join()
    assert all(read in versions for read in reads)


def test_the_first_failure_of_many_is_raised(store: ObjectStore, tmp_path: Path) -> None:
    store.write("raw/a", b"a")
    with pytest.raises(ObjectMissing, match="raw/gone"):
        store.download_objects("raw", ["a", "gone"], tmp_path / "got")
    with pytest.raises(FileNotFoundError):
        store.upload(tmp_path / "no such file", "raw/b")
    assert not store.exists("raw/b")


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    store = FileStore(tmp_path / "root")
    store.write("landing/a/x", b"x")
    (store.root / "landing" / "a" / "link").symlink_to(outside)
    (store.root / "landing" / "b").symlink_to(outside)
    listed = {info.key: info.plain for info in store.list_objects("landing")}
    assert listed == {"landing/a/link": False, "landing/a/x": True, "landing/b": False}
    assert list(store.list_objects("landing/b")) == []
    assert store.folders("landing") == ["a"]


def test_roots_are_folders_and_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store(str(tmp_path)), FileStore)
    assert open_store((tmp_path / "a b").as_uri()).uri("x/y") == (tmp_path / "a b").as_uri() + "/x/y"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    assert open_store("s3://films/below/").uri("x") == "s3://films/below/x"
    with pytest.raises(StorageError, match="expected a folder"):
        open_store("ftp://host/x")
    with pytest.raises(StorageError, match="names no bucket"):
        open_store("s3:///x")


@pytest.mark.parametrize("fault", ["SlowDown", "InternalError", "reset"])
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "POST"])
def test_a_transient_fault_is_retried(s3: S3Server, bucket: S3Store, fault: str, method: str, tmp_path: Path) -> None:
    bucket.write("raw/a", b"film")
    s3.fail(method, fault, times=2)
    bucket.write("raw/b", b"film")
    assert bucket.read("raw/a") == b"film"
    assert bucket.exists("raw/a")
    bucket.copy("raw/a", "raw/c")
    assert [info.key for info in bucket.list_objects("raw")] == ["raw/a", "raw/b", "raw/c"]
    bucket.delete(["raw/a"])
    assert s3.faults[0].times == 0
    assert not bucket.exists("raw/a")


def test_a_body_that_breaks_off_is_fetched_again(s3: S3Server, bucket: S3Store, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    bucket.write("raw/a", content)
    s3.fail("GET", "truncate", times=2)
    bucket.download("raw/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content
    assert s3.faults[0].times == 0


def test_a_large_object_survives_faults_in_its_parts(s3: S3Server, bucket: S3Store, tmp_path: Path) -> None:
    content = os.urandom(2 * PART_BYTES + 1)
    (tmp_path / "model").write_bytes(content)
    s3.fail("PUT", "InternalError")
    bucket.upload(tmp_path / "model", "models/m")
    assert [method for method, path in s3.seen if "partNumber" in path].count("PUT") == 3 + 1
    s3.fail("GET", "truncate", times=2)
    bucket.download("models/m", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content


def test_a_body_that_never_arrives_whole_leaves_no_file(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penumo_assets.resources.storage.s3.MAX_RETRIES", 2)
    bucket = S3Store("films", "")
    bucket.write("raw/a", os.urandom(100_000))
    s3.fail("GET", "truncate", times=1000)
    with pytest.raises(StorageError, match=r"raw/a: .*AWS_ENDPOINT_URL"):
        bucket.download("raw/a", tmp_path / "got" / "a")
    assert not list((tmp_path / "got").glob("*"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("AccessDenied", "AccessDenied.*PENUMO_ROOT"),
        ("SignatureDoesNotMatch", "refused the credentials.*AWS_ACCESS_KEY_ID"),
        ("PermanentRedirect", "another region.*AWS_DEFAULT_REGION"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_a_refusal_names_the_variable_to_look_at(
    s3: S3Server, bucket: S3Store, fault: str, message: str, method: str
) -> None:
    bucket.write("raw/a", b"a")
    s3.fail(method, fault, times=1000)
    calls = {
        "GET": [lambda: bucket.read("raw/a"), lambda: list(bucket.list_objects("raw"))],
        "PUT": [lambda: bucket.write("raw/a", b"a"), lambda: bucket.copy("raw/a", "raw/b")],
        "POST": [lambda: bucket.delete(["raw/a"])],
    }
    for call in calls[method]:
        with pytest.raises(StorageError, match=message):
            call()


def test_a_wrong_bucket_is_named(s3: S3Server) -> None:
    store = S3Store("not-there", "")
    for call in (
        lambda: store.read("a"),
        lambda: store.write("a", b""),
        lambda: list(store.list_objects("a")),
        lambda: store.delete(["a"]),
    ):
        with pytest.raises(StorageError, match="no bucket not-there; check PENUMO_ROOT"):
            call()


def test_missing_credentials_are_named_at_once(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="no AWS credentials; set AWS_ACCESS_KEY_ID"):
        S3Store("films", "")
    assert s3.seen == []


def test_credentials_that_change_are_asked_for_again(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of a role live for hours, a code location for weeks: both clients must go on with the next ones."""
    calls = tmp_path / "calls"
    answer = {"Version": 1, "AccessKeyId": "testing", "SecretAccessKey": "testing", "SessionToken": "t"}
    program = tmp_path / "credentials.py"
    program.write_text(
        "import datetime, json, pathlib\n"
        f"calls = pathlib.Path({str(calls)!r})\n"
        "calls.write_text(calls.read_text() + 'x' if calls.exists() else 'x')\n"
        # Less than ten minutes to live: boto3 renews such credentials at every use.
        "end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=4)\n"
        f"print(json.dumps({answer!r} | {{'Expiration': end.isoformat()}}))\n"
    )
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(s3_module, "_CREDENTIALS_LIVE", timedelta(seconds=1))
    store = S3Store("films", "")
    store.write("a", b"x")
    before = len(calls.read_text())
    time.sleep(0.2)  # obstore asks at most every tenth of a second
    store.read("a")
    assert len(calls.read_text()) > before, "obstore asks boto3 again when what it was given has aged"


def test_a_missing_region_is_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(StorageError, match="set AWS_DEFAULT_REGION"):
        S3Store("films", "")
    monkeypatch.setenv("AWS_REGION", REGION)
    S3Store("films", "").write("a", b"x")


def test_an_endpoint_that_does_not_answer_is_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("penumo_assets.resources.storage.s3.MAX_RETRIES", 1)
    store = S3Store("films", "")
    for call in (lambda: store.read("a"), lambda: list(store.list_objects("a"))):
        with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
            call()


def test_everything_written_is_encrypted_with_the_key(s3: S3Server, tmp_path: Path) -> None:
    store = S3Store("films", "", kms_key=KMS_KEY)
    (tmp_path / "large").write_bytes(bytes(PART_BYTES + 1))
    store.write("small", b"1")
    store.upload(tmp_path / "large", "large")
    store.copy("small", "copy")
    s3.fail("PUT", "InvalidRequest")
    store.copy("large", "copied in parts")
    client = boto3.client("s3")
    for key in ("small", "large", "copy", "copied in parts"):
        head = client.head_object(Bucket="films", Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY), key


def test_what_commands_write_is_encrypted_as_what_runs_write(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENUMO_ROOT", "s3://films")
    monkeypatch.setenv("PENUMO_KMS_KEY", KMS_KEY)
    root_store().write("settings/ward.yaml", b"")
    head = boto3.client("s3").head_object(Bucket="films", Key="settings/ward.yaml")
    assert head["SSEKMSKeyId"] == KMS_KEY


def test_known_names_are_moved_without_listing(s3: S3Server, bucket: S3Store, tmp_path: Path) -> None:
    for name in ("a", "b"):
        bucket.write(f"raw/{name}", b"x")
    bucket.download_objects("raw", ["a", "b"], tmp_path / "got")
    bucket.adopt_folder(tmp_path / "got", "copy")
    bucket.copy_all([("copy/a", "npz/a")])
    bucket.delete(["copy/a", "copy/b"])
    assert not any("list-type" in path for _, path in s3.seen)
    assert len(s3.seen) == 8


def test_a_byte_that_changes_on_its_way_is_noticed_and_read_again(
    s3: S3Server, bucket: S3Store, tmp_path: Path
) -> None:
    bucket.write("raw/a.png", b"pixels")
    s3.fail("GET", "flip")
    assert bucket.read("raw/a.png") == b"pixels"
    s3.fail("GET", "flip")
    bucket.download("raw/a.png", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"pixels"
    s3.fail("GET", "flip", times=100)
    for attempt in (lambda: bucket.read("raw/a.png"), lambda: bucket.download("raw/a.png", tmp_path / "b.png")):
        with pytest.raises(StorageError, match=r"raw/a\.png: its bytes are not those that were stored"):
            attempt()
    assert not (tmp_path / "b.png").exists()


def test_a_large_object_that_changes_on_its_way_is_noticed(s3: S3Server, bucket: S3Store, tmp_path: Path) -> None:
    bucket.write("models/m.bin", b"w" * (PART_BYTES + 1))
    s3.fail("GET", "flip", times=1, after=1)  # the first part; what comes before asks for the size
    bucket.download("models/m.bin", tmp_path / "m.bin")
    assert (tmp_path / "m.bin").read_bytes() == b"w" * (PART_BYTES + 1)


def test_a_byte_that_changes_on_its_way_to_the_bucket_is_refused(s3: S3Server, bucket: S3Store) -> None:
    s3.fail("PUT", "flip")
    with pytest.raises(StorageError, match="XAmzContentSHA256Mismatch"):
        bucket.write("raw/a.png", b"pixels")
    assert not bucket.exists("raw/a.png")


def test_a_copy_keeps_the_digest(s3: S3Server, bucket: S3Store) -> None:
    bucket.write("jobs/a.png", b"pixels")
    bucket.copy("jobs/a.png", "raw/a.png")
    s3.fail("GET", "flip", times=100)
    with pytest.raises(StorageError, match="not those that were stored"):
        bucket.read("raw/a.png")


def test_a_file_on_its_way_into_a_folder_is_in_no_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, listed = FileStore(tmp_path / "root"), []
    (tmp_path / "film").write_bytes(b"pixels")

    def half(source: Path, target: Path) -> None:
        target.write_bytes(b"pix")
        listed.extend(info.key for info in store.list_objects("landing"))
        listed.extend(store.folders("landing"))
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("shutil.copyfile", half)
    store.upload(tmp_path / "film", "landing/a.png")
    assert listed == []
    assert [info.key for info in store.list_objects("landing")] == ["landing/a.png"]


def test_what_a_killed_program_had_not_finished_writing_is_not_adopted_and_goes_with_its_folder(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "root")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.png").write_bytes(b"pixels")
    (tmp_path / "made" / ".x1y2.tmp").write_bytes(b"pix")
    assert store.adopt_folder(tmp_path / "made", "jobs/a/output") == ["a.png"]
    (store.path("jobs/a/output") / ".z.tmp").write_bytes(b"pix")
    store.delete_folder("jobs/a")
    assert not store.path("jobs").exists()


def test_a_record_goes_to_the_disk_after_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, events = FileStore(tmp_path), []
    store.write("npz/a.npz", b"tensor")
    for name in ("sync", "fsync", "replace"):
        done = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, done=done: (events.append(name), done(*given)))
    store.swap("manifests/a.jsonl", b"npz/a.npz", None)
    assert events == ["sync", "fsync", "replace"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_named_without_a_path_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = FileStore(tmp_path / "root")
    store.write("raw/a.png", b"pixels")

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "root"))

    for name in ("mkdir", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    for attempt in (lambda: store.write("npz/b.npz", b"1"), lambda: store.delete(["raw/a.png"])):
        with pytest.raises(StorageError, match=os.strerror(number)) as caught:
            attempt()
        assert str(tmp_path) not in str(caught.value)


def test_a_listing_goes_on_while_somebody_else_deletes(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "root")
    for number in range(4):
        store.write(f"jobs/a/{number}.png", b"1")
        store.write(f"jobs/b/{number}.png", b"1")
    listing = store.list_objects("jobs")
    assert next(listing).key == "jobs/a/0.png"
    store.delete_folder("jobs/a")
    store.delete_folder("jobs/b")
    assert list(listing) == []
    assert store.folders("jobs") == []
