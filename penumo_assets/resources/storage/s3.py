"""The object store on S3, or on anything that speaks its API (``AWS_ENDPOINT_URL``).

obstore moves the bytes: it needs about half of boto3's CPU time per object (benchmarks/storage.py), and retries,
resumed bodies and multi-part uploads are its own. boto3 finds the credentials, lists (obstore refuses a whole
listing for one odd key, and landing holds whatever a hospital sends), deletes (obstore does not repeat that after a
reset connection) and copies what is too large for one request.

What is sent is signed with its SHA-256, so that S3 refuses what changed on its way. The same digest is kept as the
object's metadata, which a copy inherits, and compared when the object is read; objects that others wrote have none.
In landing, where others write, a wrong digest or a header that obstore does not read must not keep an object from its
reader, who then rejects that file alone: there a digest that stays wrong is passed over, and boto3 reads the rest.
"""

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import urlparse

import boto3
import botocore.session
import obstore
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from botocore.loaders import Loader, create_loader
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store as Transfer

from penumo_assets.jobs.contract import write_atomic
from penumo_assets.resources.storage.file_store import file_errors
from penumo_assets.resources.storage.object_store import (
    ObjectChanged,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    StorageError,
    check_key,
    is_landed,
    redacted,
    refuse_large,
)
from penumo_assets.resources.storage.s3_errors import HeadersUnread, RequestInvalid, named, translated

PART_BYTES = 16 * 2**20
_MAX_PARTS = 10_000  # the API's limit for one object
_PARTS_AT_ONCE = 4
MAX_RETRIES = 8
READ_TIMEOUT_SECONDS = 60
_SWAP_PAUSES = (0.2, 1.0, 3.0, 9.0)  # seconds before a conditional request is sent again
_READINGS = 3  # of an object whose bytes are not those that were stored
_DIGEST = "penumo-sha256"
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")  # the storage classes that a listing names and nobody reads from
_DELETE_BATCH = 1000  # the API's limit
_LARGE_AT_ONCE = 2  # with the two above: at most 128 MiB of parts in memory
_AWS_HOST = re.compile(r"s3([.-][a-z0-9-]+)?\.amazonaws\.com(\.cn)?")
# boto3 renews credentials that have less than ten minutes to live; obstore asks for them five minutes before this.
_CREDENTIALS_LIVE = timedelta(minutes=10)


class S3Store(ObjectStore):
    """Objects in a bucket below a prefix. Endpoint, region and credentials come from the AWS environment.

    Opening it raises StorageError if there is no region or there are no credentials.

    Parameters
    ----------
    kms_key : id or ARN of the KMS key that encrypts what is written; empty for the bucket's own default.
    fail_fast : list and delete with one retry and short time-outs.
    """

    workers = 32

    def __init__(self, bucket: str, prefix: str, kms_key: str = "", *, fail_fast: bool = False) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.root_uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        session = _session()
        region = session.region_name or os.environ.get("AWS_REGION")
        if not region:
            raise StorageError(f"{self.root_uri}: no AWS region; set AWS_DEFAULT_REGION")
        retries: Any = {"mode": "standard", "max_attempts": 1 if fail_fast else MAX_RETRIES + 1}
        timeouts: Any = {"connect_timeout": 5, "read_timeout": 10 if fail_fast else READ_TIMEOUT_SECONDS}
        with translated(self.root_uri, self.bucket):
            self._client = session.client("s3", region_name=region, config=Config(retries=retries, **timeouts))
            self._objects = _open_transfer(session, region, self._client.meta.endpoint_url, bucket, kms_key)
        self._kms_key = kms_key
        self._large = BoundedSemaphore(_LARGE_AT_ONCE)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator("list_objects_v2")
        with translated(prefix, self.bucket):
            yield from paginator.paginate(Bucket=self.bucket, Prefix=self._key(prefix) + "/", **options)

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        skip = len(self.prefix) + 1 if self.prefix else 0
        # `after` may be any key that was listed, also one that this store would not write.
        start = {"StartAfter": f"{self.prefix}/{after}" if self.prefix else after} if after else {}
        for page in self._pages(prefix, OptionalObjectAttributes=["RestoreStatus"], **start):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    etag = item["ETag"].strip('"')
                    yield ObjectInfo(item["Key"][skip:], item["Size"], etag, archived=_is_archived(item))

    def folders(self, prefix: str) -> list[str]:
        pages = self._pages(prefix, Delimiter="/")
        found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])]
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def exists(self, key: str) -> bool:
        try:
            with translated(key, self.bucket):
                obstore.head(self._objects, self._key(key))
        except ObjectMissing:
            return False
        return True

    def read(self, key: str, max_bytes: int | None = None) -> bytes:
        try:
            return self._get(key, max_bytes)[0]
        except HeadersUnread:
            with translated(key, self.bucket):
                answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
                refuse_large(key, answer["ContentLength"], max_bytes)
                return answer["Body"].read()

    def read_version(self, key: str) -> tuple[bytes, str]:
        return self._get(key, None)

    def _get(self, key: str, max_bytes: int | None) -> tuple[bytes, str]:
        """The object and its entity tag; read again where a byte changed on its way."""
        for _ in range(_READINGS):
            with translated(key, self.bucket):
                answer = obstore.get(self._objects, self._key(key))
                refuse_large(key, answer.meta["size"], max_bytes)
                data = answer.bytes().to_bytes()
            if answer.attributes.get(_DIGEST) in (None, hashlib.sha256(data).hexdigest()):
                break
        else:
            if not is_landed(key):
                raise _changed(key)
        return data, str(answer.meta["e_tag"])

    def write(self, key: str, data: bytes) -> None:
        self._put(key, data, len(data))

    def swap(self, key: str, data: bytes, version: str | None) -> None:
        mode: Any = "create" if version is None else {"e_tag": version}
        digest: Any = {_DIGEST: hashlib.sha256(data).hexdigest()}
        for pause in (*_SWAP_PAUSES, None):
            try:
                with translated(key, self.bucket):
                    obstore.put(self._objects, self._key(key), data, attributes=digest, mode=mode, use_multipart=False)
                return
            except StorageError:
                # obstore sends a conditional request once: what became of one whose answer was lost shows the object.
                found, now = self._state(key)
                if found == data:
                    return
                if now != version:
                    raise ObjectChanged(f"{redacted(key)} was written by somebody else meanwhile") from None
                if pause is None:
                    raise
                time.sleep(pause)

    def _state(self, key: str) -> tuple[bytes, str] | tuple[None, None]:
        try:
            return self.read_version(key)
        except ObjectMissing:
            return None, None

    def upload(self, source: Path, key: str) -> None:
        self._put(key, source, source.stat().st_size)

    def _put(self, key: str, content: bytes | Path, size: int) -> None:
        if size <= PART_BYTES:
            data = content.read_bytes() if isinstance(content, Path) else content
            digest: Any = {_DIGEST: hashlib.sha256(data).hexdigest()}
            with translated(key, self.bucket):
                obstore.put(self._objects, self._key(key), data, attributes=digest, use_multipart=False)
            return
        digest = {_DIGEST: (_digest_of(content) if isinstance(content, Path) else hashlib.sha256(content)).hexdigest()}
        part = max(PART_BYTES, -(-size // _MAX_PARTS))
        options: Any = {"attributes": digest, "chunk_size": part, "max_concurrency": _PARTS_AT_ONCE}
        with translated(key, self.bucket), self._large:  # visible when the last part is confirmed, or not at all
            obstore.put(self._objects, self._key(key), content, **options)

    def download(self, key: str, target: Path) -> None:
        try:
            self._download(key, target)
        except HeadersUnread:
            with translated(key, self.bucket), file_errors(key):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._client.download_file(self.bucket, self._key(key), str(target))

    def _download(self, key: str, target: Path) -> None:
        for _ in range(_READINGS):
            with translated(key, self.bucket):
                answer = obstore.get(self._objects, self._key(key))
                size, etag, stored = answer.meta["size"], answer.meta["e_tag"], answer.attributes.get(_DIGEST)
                data = answer.bytes().to_bytes() if size <= PART_BYTES else None
                del answer  # closes its connection: the parts of a large object come over their own
            with file_errors(key):
                if data is not None:
                    write_atomic(target, data)
                    found = hashlib.sha256(data)
                else:
                    with self._large:
                        self._download_parts(key, target, size, etag)
                    found = _digest_of(target)
            if stored in (None, found.hexdigest()):
                return
        if not is_landed(key):
            target.unlink()
            raise _changed(key)

    def _download_parts(self, key: str, target: Path, size: int, etag: str | None) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".", suffix=".tmp") as folder,
            ThreadPoolExecutor(_PARTS_AT_ONCE) as pool,
        ):
            temporary = Path(folder) / "object"
            with temporary.open("wb") as file:

                def fetch(start: int) -> None:
                    options: Any = {"range": (start, min(start + PART_BYTES, size)), "if_match": etag}
                    with translated(key, self.bucket):
                        part = obstore.get(self._objects, self._key(key), options=options).bytes()
                    os.pwrite(file.fileno(), part, start)

                list(pool.map(fetch, range(0, size, PART_BYTES)))
            temporary.replace(target)

    def copy(self, source: str, target: str) -> None:
        if source == target:
            return
        try:
            with translated(source, self.bucket):
                obstore.copy(self._objects, self._key(source), self._key(target))
        except RequestInvalid:
            encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._kms_key} if self._kms_key else {}
            origin = {"Bucket": self.bucket, "Key": self._key(source)}
            with translated(source, self.bucket):
                self._client.copy(origin, self.bucket, self._key(target), ExtraArgs=encryption)

    def delete(self, keys: Iterable[str]) -> None:
        names = [{"Key": self._key(key)} for key in keys]
        for start in range(0, len(names), _DELETE_BATCH):
            batch = names[start : start + _DELETE_BATCH]
            with translated(self.root_uri, self.bucket):
                answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
            if answer.get("Errors"):
                first = answer["Errors"][0]
                raise named(first.get("Key", self.root_uri), self.bucket, first.get("Code", "unknown"))


def _session() -> boto3.Session:
    """A session by the environment of now, which reads botocore's files of AWS's services once per process: 0.2 s."""
    core = botocore.session.get_session()
    session = boto3.Session(botocore_session=core)
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return session


@cache
def _loader(search_path: str | None) -> Loader:
    return create_loader(search_path)


def _open_transfer(session: boto3.Session, region: str, address: str, bucket: str, kms_key: str) -> Transfer:
    """obstore's client of ``bucket`` at the endpoint ``address`` that boto3 has found, with its credentials."""
    if session.get_credentials() is None:
        raise NoCredentialsError
    endpoint = urlparse(address)
    hosted = bool(_AWS_HOST.fullmatch(endpoint.hostname or "")) and "." not in bucket
    host = f"{bucket}.{endpoint.netloc}" if hosted else endpoint.netloc
    kms: Any = {"aws_server_side_encryption": "aws:kms", "aws_sse_kms_key_id": kms_key}
    http: Any = {"allow_http": endpoint.scheme == "http", "connect_timeout": "5s", "timeout": "600s"}
    return Transfer(
        bucket,
        region=region,
        endpoint=f"{endpoint.scheme}://{host}{endpoint.path}",
        virtual_hosted_style_request=hosted,
        client_options=http | {"read_timeout": f"{READ_TIMEOUT_SECONDS}s"},
        retry_config={"max_retries": MAX_RETRIES, "retry_timeout": timedelta(minutes=3)},
        credential_provider=Boto3CredentialProvider(session, ttl=_CREDENTIALS_LIVE),
        **(kms | {"aws_sse_bucket_key_enabled": True} if kms_key else {}),
    )


def _is_archived(item: dict[str, Any]) -> bool:
    """Whether a listed object must be restored before it can be read; a restored one has a date on which that ends."""
    restored = "RestoreExpiryDate" in item.get("RestoreStatus", {})
    return item.get("StorageClass") in _ARCHIVES and not restored


def _digest_of(path: Path) -> Any:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _changed(key: str) -> StorageError:
    return StorageError(
        f"{redacted(key)}: its bytes are not those that were stored; check the network, then the object"
    )
