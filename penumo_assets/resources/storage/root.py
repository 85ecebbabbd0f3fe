"""Where the application's objects live: one root, a folder (``file://``) or a bucket (``s3://``).

Keys are relative to it. An object becomes visible whole or not at all.
"""

from pathlib import Path
from urllib.parse import unquote, urlparse

from dagster import ConfigurableResource
from pydantic import Field, PrivateAttr

from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import ObjectStore, StorageError


def open_store(root: str, kms_key: str = "", *, fail_fast: bool = False) -> ObjectStore:
    """The store at ``root``: ``s3://bucket/prefix``, ``file:///folder`` or a folder.

    ``kms_key`` encrypts what is written to a bucket; empty for the bucket's own default. With
    ``fail_fast``, listing and deleting fail within half a minute where a bucket does not answer.

    Raises
    ------
    StorageError
        If the scheme is neither ``s3`` nor ``file``, or the bucket or the AWS region is missing.
    """
    parsed = urlparse(root)
    if parsed.scheme == "s3":
        from penumo_assets.resources.storage.s3 import S3Store  # embedded use needs neither boto3 nor obstore

        if not parsed.netloc:
            raise StorageError(f"{root} names no bucket; expected s3://bucket/prefix")
        return S3Store(parsed.netloc, parsed.path, kms_key, fail_fast=fail_fast)
    if parsed.scheme == "file":
        return FileStore(Path(unquote(parsed.path)))
    if "://" in root:
        raise StorageError(f"cannot store under {root}; expected a folder, file:// or s3://")
    return FileStore(Path(root))


def read_uri(uri: str, max_bytes: int) -> bytes:
    """An object outside the application's root: ``s3://bucket/key``, ``file:///path`` or a path.

    Raises
    ------
    StorageError
        If it cannot be read or is larger than ``max_bytes``; the message names its last part.
    """
    folder, _, name = uri.rpartition("/")
    return open_store(folder or ("/" if uri.startswith("/") else ".")).read(unquote(name), max_bytes)


class Storage(ConfigurableResource):
    """Where every object of the application lives, under one root."""

    root: str = Field(description="Root of all objects: a folder, file:///folder or s3://bucket/prefix.")
    kms_key: str = Field(default="", description="KMS key for objects in a bucket; empty: the bucket's default.")
    reports_url: str = Field(
        default="", description="Address of `penumo reports`, for links to reports; empty: no links."
    )

    _store: ObjectStore | None = PrivateAttr(default=None)

    @property
    def store(self) -> ObjectStore:
        if self._store is None:
            self._store = open_store(self.root, self.kms_key)
        return self._store

    def page_of(self, key: str) -> str:
        """Where a browser opens a report; empty where no address is known."""
        return f"{self.reports_url.rstrip('/')}/{key}" if self.reports_url else ""

    def failing_fast(self) -> ObjectStore:
        """The store for a sensor, whose tick is lost if it takes a minute (`open_store`)."""
        return open_store(self.root, self.kms_key, fail_fast=True)
