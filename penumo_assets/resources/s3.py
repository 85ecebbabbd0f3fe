"""The object store on S3, or on anything that speaks its API (``AWS_ENDPOINT_URL``)."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from penumo_assets.resources.storage import ObjectInfo, ObjectMissing, ObjectStore, StorageError, bounded, check_key


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
            self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in {"404", "NoSuchKey", "NotFound"}:
                return False
            raise StorageError(f"cannot look up {key}: {error.response['Error']['Code']}") from error
        return True

    def read(self, key: str, max_bytes: int | None = None) -> bytes:
        try:
            body = self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"]
        except self._client.exceptions.NoSuchKey as error:
            raise ObjectMissing(f"there is no object {key}") from error
        with body:
            return bounded(key, body.read(None if max_bytes is None else max_bytes + 1), max_bytes)

    def write(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def upload(self, source: Path, key: str) -> None:
        self._client.upload_file(str(source), self.bucket, self._key(key))

    def download(self, key: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._client.download_file(self.bucket, self._key(key), str(target))
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in {"404", "NoSuchKey"}:
                raise ObjectMissing(f"there is no object {key}") from error
            raise StorageError(f"cannot download {key}: {error.response['Error']['Code']}") from error

    def copy(self, source: str, target: str) -> None:
        if source != target:
            self._client.copy({"Bucket": self.bucket, "Key": self._key(source)}, self.bucket, self._key(target))

    def delete(self, keys: Iterable[str]) -> None:
        names = [{"Key": self._key(key)} for key in keys]
        for start in range(0, len(names), 1000):
            batch = names[start : start + 1000]
            answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
            if answer.get("Errors"):
                raise StorageError(f"could not delete {len(answer['Errors'])} objects: {answer['Errors'][0]['Code']}")
