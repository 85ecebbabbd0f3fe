"""One object-store interface over a folder (``file://``) and a bucket (``s3://``).

Keys are relative to one root URI. An object becomes visible whole or not at all.
"""

import json
import os
import re
import shutil
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from dagster import ConfigurableResource
from pydantic import Field, PrivateAttr

from penumo_assets.jobs.contract import write_atomic

# Backslashes; characters that cannot be seen, turn the direction of what follows or end a line; halves of characters,
# which stand for bytes that are no UTF-8.
_UNSAFE = re.compile(
    "[\\\\\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_MAX_NAME_BYTES = 240  # of a folder or file; most file systems take 255, and a temporary or derived name needs some
_MAX_KEY_BYTES = 1000  # S3 takes 1,024, prefix included
UNSAFE_NAME = "its name cannot be a file's: land it again under another one"
_TEMPORARY = re.compile(r"(^|/)\.[^/]*\.tmp$")


class StorageError(RuntimeError):
    """The store refused or could not do what was asked; the message names the key and the remedy."""


class ObjectMissing(StorageError):
    """There is no object under this key."""


@dataclass(frozen=True)
class ObjectInfo:
    """One listed object: key under the root, size in bytes, entity tag (changes with the content).

    ``plain`` is False for what a folder can hold and a bucket cannot: links, pipes, sockets, devices. They are listed,
    so that somebody can say what became of them, and never read.
    """

    key: str
    size: int
    etag: str
    plain: bool = True


def is_key(key: str) -> bool:
    """Whether ``key`` stays under the root and can be a file's name everywhere.

    No empty or dot segment, none of more than 240 bytes and not more than 1,000 in all, no backslash, no control or
    invisible character, none that turns the direction of the text, and none that is not UTF-8.
    """
    if _UNSAFE.search(key) or len(key.encode()) > _MAX_KEY_BYTES:
        return False
    return not any(part in {"", ".", ".."} or len(part.encode()) > _MAX_NAME_BYTES for part in key.split("/"))


def printable(name: str) -> str:
    """A name as it can be written down: what cannot be seen, or is no UTF-8, stands as its escape (``\\u202e``)."""
    return _UNSAFE.sub(lambda found: found[0] if found[0] == "\\" else ascii(found[0])[1:-1], name)


def check_key(key: str) -> str:
    """Return ``key`` if it stays under the root (`is_key`).

    Raises
    ------
    StorageError
        If it does not.
    """
    if not is_key(key):
        raise StorageError(f"not a valid object key: {key!r}")
    return key


class ObjectStore(ABC):
    """Objects under one root. All methods raise StorageError; reads of absent keys ObjectMissing."""

    root_uri: str
    workers = 8  # transfers at once

    def uri(self, key: str) -> str:
        return f"{self.root_uri}/{check_key(key)}"

    def location(self, key: str) -> str:
        """How metadata and logs name an object: its URI, but never a path of this machine."""
        return check_key(key) if self.root_uri.startswith("file:") else self.uri(key)

    @abstractmethod
    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Every object below the folder ``prefix``, in key order; those whose key comes after ``after``."""

    @abstractmethod
    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below ``prefix``, sorted."""

    @abstractmethod
    def exists(self, key: str) -> bool: ...

    @abstractmethod
    def read(self, key: str, max_bytes: int | None = None) -> bytes:
        """The whole object; refused if it is larger than ``max_bytes``."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def upload(self, source: Path, key: str) -> None:
        """Store a file's bytes; a ``source`` that is not there is FileNotFoundError."""

    @abstractmethod
    def download(self, key: str, target: Path) -> None:
        """Put the object's bytes at ``target`` (a link where that is safe; treat it as read-only)."""

    @abstractmethod
    def copy(self, source: str, target: str) -> None: ...

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; absent ones are not an error."""

    def read_json(self, key: str) -> Any:
        return json.loads(self.read(key))

    def write_json(self, key: str, value: Any) -> None:
        self.write(key, json.dumps(value, indent=2, sort_keys=True, allow_nan=False).encode())

    def adopt_folder(self, folder: Path, prefix: str) -> list[str]:
        """Store every file below ``folder``, which the caller then discards; names below ``prefix``, sorted."""
        return self._each_file(folder, prefix, self.upload)

    def _each_file(self, folder: Path, prefix: str, store_one: Callable[[Path, str], None]) -> list[str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        names = [path.relative_to(folder).as_posix() for path in files]
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(store_one, files, [f"{prefix}/{name}" for name in names]))
        return names

    def download_objects(self, prefix: str, names: Iterable[str], folder: Path) -> None:
        """Put the objects ``prefix/name`` at ``folder/name``."""
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(lambda name: self.download(f"{prefix}/{name}", folder / name), names))

    def copy_all(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Copy many ``(source, target)`` keys."""
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(lambda pair: self.copy(*pair), pairs))

    def delete_folder(self, prefix: str) -> None:
        self.delete(info.key for info in list(self.list_objects(prefix)))


class FileStore(ObjectStore):
    """Objects as files below a folder. Entity tags come from size and modification time."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.root_uri = self.root.as_uri()

    def path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _plain(self, key: str) -> Path:
        """The file of ``key``, refused if it is a link, a pipe or a device, or lies behind a link.

        The root itself may be reached through links. What replaces a file by a link between this look and the reading
        can write under the root, and so needs no link.
        """
        path = self.path(key)
        if not stat.S_ISREG(path.lstat().st_mode) or path.resolve() != path:
            raise StorageError(f"{key} is no plain file")
        return path

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        folder = self.path(prefix)
        if folder.resolve() == folder:  # no link in the place of the folder or of one above it
            yield from self._walk(folder, prefix, after)

    def _walk(self, folder: Path, prefix: str, after: str) -> Iterator[ObjectInfo]:
        if not folder.is_dir() or (prefix + "/" < after and not after.startswith(prefix + "/")):
            return
        with os.scandir(folder) as entries:
            # A folder sorts as "name/", which is the order of the keys below it. A link could lead out of the root,
            # or round in a circle: it is no folder, wherever it leads.
            ordered = sorted(
                ((entry.name + ("/" if entry.is_dir(follow_symlinks=False) else ""), entry) for entry in entries),
                key=lambda item: item[0],
            )
        for name, entry in ordered:
            key = f"{prefix}/{entry.name}"
            if name.endswith("/"):
                yield from self._walk(Path(entry.path), key, after)
            elif key > after and not _TEMPORARY.search(key):
                info = entry.stat(follow_symlinks=False)
                plain = stat.S_ISREG(info.st_mode)
                yield ObjectInfo(key, info.st_size if plain else 0, f"{info.st_size:x}-{info.st_mtime_ns:x}", plain)

    def folders(self, prefix: str) -> list[str]:
        folder = self.path(prefix)
        if not folder.is_dir():
            return []
        return sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.is_symlink())

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def read(self, key: str, max_bytes: int | None = None) -> bytes:
        try:
            with self._plain(key).open("rb") as file:
                data = file.read(-1 if max_bytes is None else max_bytes + 1)
        except OSError as error:
            raise _file_error(key, error) from error
        return _bounded(key, data, max_bytes)

    def write(self, key: str, data: bytes) -> None:
        try:
            write_atomic(self.path(key), data)
        except OSError as error:
            raise _file_error(key, error) from error

    def upload(self, source: Path, key: str) -> None:
        source.stat()  # a file that is not there must not pass for a missing object
        self._place(source, key, shutil.copyfile)

    def download(self, key: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _link_or_copy(self._plain(key), target)
        except OSError as error:
            raise _file_error(key, error) from error

    def copy(self, source: str, target: str) -> None:
        if source == target:
            return
        if not self.exists(source):
            raise ObjectMissing(f"there is no object {source}")
        self._place(self._plain(source), target, _link_or_copy)

    def adopt_folder(self, folder: Path, prefix: str) -> list[str]:
        return self._each_file(folder, prefix, lambda path, key: self._place(path, key, _link_or_copy))

    def _place(self, source: Path, key: str, transfer: Callable[[Path, Path], object]) -> None:
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".", suffix=".tmp") as folder:
            temporary = Path(folder) / "object"
            try:
                transfer(source, temporary)
                temporary.replace(target)
            except OSError as error:
                raise _file_error(key, error) from error

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self.path(key)
            path.unlink(missing_ok=True)
            parent = path.parent
            while parent != self.root and parent.is_dir() and not any(parent.iterdir()):
                try:
                    parent.rmdir()
                except OSError:
                    break  # somebody wrote into it meanwhile
                parent = parent.parent


def open_store(root: str, kms_key: str = "", *, impatient: bool = False) -> ObjectStore:
    """The store at ``root``: ``s3://bucket/prefix``, ``file:///folder`` or a folder.

    ``kms_key`` encrypts what is written to a bucket; empty for the bucket's own default. ``impatient`` is for
    callers that would rather be told within half a minute that a bucket does not answer than wait for it.

    Raises
    ------
    StorageError
        If the scheme is neither ``s3`` nor ``file``, or the bucket or the AWS region is missing.
    """
    parsed = urlparse(root)
    if parsed.scheme == "s3":
        from penumo_assets.resources.s3 import S3Store  # embedded use needs neither boto3 nor obstore

        if not parsed.netloc:
            raise StorageError(f"{root} names no bucket; expected s3://bucket/prefix")
        return S3Store(parsed.netloc, parsed.path, kms_key, impatient=impatient)
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

    _store: ObjectStore | None = PrivateAttr(default=None)

    @property
    def store(self) -> ObjectStore:
        if self._store is None:
            self._store = open_store(self.root, self.kms_key)
        return self._store

    def impatient(self) -> ObjectStore:
        """The store for a sensor, whose tick is lost if it takes a minute (`open_store`)."""
        return open_store(self.root, self.kms_key, impatient=True)


def _link_or_copy(source: Path, target: Path) -> None:
    # Objects are only ever replaced, never written in place, so two keys may share one file.
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _bounded(key: str, data: bytes, max_bytes: int | None) -> bytes:
    if max_bytes is not None and len(data) > max_bytes:
        raise StorageError(f"{key} is larger than the {max_bytes} bytes allowed for it")
    return data


def _file_error(key: str, error: OSError) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"there is no object {key}")
    return StorageError(f"{key}: {error.strerror or type(error).__name__}")
