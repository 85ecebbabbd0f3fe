"""The object store on S3, or on anything that speaks its API (``AWS_ENDPOINT_URL``)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from penumo_assets.resources.storage import ObjectInfo, ObjectMissing, ObjectStore, StorageError, bounded, check_key

_DELETE_BATCH = 1000  # the API's limit


class S3Store(ObjectStore):
    """Objects in a bucket below a prefix. Endpoint, region and credentials come from the AWS environment."""

    def __init__(self, bucket: str, prefix: str, client: Any = None) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.root_uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._client = client or boto3.client(
            "s3", config=Config(retries={"mode": "adaptive", "max_attempts": 8}, max_pool_connections=16)
        )

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator("list_objects_v2")
        with _translated(prefix):
            yield from paginator.paginate(Bucket=self.bucket, Prefix=self._key(prefix) + "/", **options)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        skip = len(self.prefix) + 1 if self.prefix else 0
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    yield ObjectInfo(item["Key"][skip:], item["Size"], item["ETag"].strip('"'))

    def folders(self, prefix: str) -> list[str]:
        found = [
            item["Prefix"] for page in self._pages(prefix, Delimiter="/") for item in page.get("CommonPrefixes", [])
        ]
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def exists(self, key: str) -> bool:
        try:
            with _translated(key):
                self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except ObjectMissing:
            return False
        return True

    def read(self, key: str, max_bytes: int | None = None) -> bytes:
        with _translated(key):
            body = self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"]
            with body:
                return bounded(key, body.read(None if max_bytes is None else max_bytes + 1), max_bytes)

    def write(self, key: str, data: bytes) -> None:
        with _translated(key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def upload(self, source: Path, key: str) -> None:
        with _translated(key):
            self._client.upload_file(str(source), self.bucket, self._key(key))

    def download(self, key: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _translated(key):
            self._client.download_file(self.bucket, self._key(key), str(target))

    def copy(self, source: str, target: str) -> None:
        if source != target:
            origin = {"Bucket": self.bucket, "Key": self._key(source)}
            with _translated(source):
                self._client.copy(origin, self.bucket, self._key(target))

    def delete(self, keys: Iterable[str]) -> None:
        names = [{"Key": self._key(key)} for key in keys]
        for start in range(0, len(names), _DELETE_BATCH):
            batch = names[start : start + _DELETE_BATCH]
            with _translated(self.root_uri):
                answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
            if answer.get("Errors"):
                raise StorageError(f"could not delete {len(answer['Errors'])} objects: {answer['Errors'][0]['Code']}")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Botocore's errors in this interface's words; credentials and addresses stay out of the message."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        if code in {"404", "NoSuchKey", "NotFound"}:
            raise ObjectMissing(f"there is no object {what}") from error
        raise StorageError(f"{what}: S3 answered {code}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise StorageError(f"{what}: {type(error).__name__}") from error
