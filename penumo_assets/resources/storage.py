"""One object-store interface over a folder (``file://``) and a bucket (``s3://``).

Keys are relative to one root URI. An object becomes visible whole or not at all.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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


class ObjectChanged(StorageError):
    """The object is not the version that was to be replaced: somebody else has written it meanwhile."""


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


def to_json(value: Any) -> bytes:
    """How the application writes a record."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False).encode()


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
        raise StorageError(f"not a valid object key: {told(key)!r}")
    return key


def told(key: str) -> str:
    """How messages name an object: one in landing by its cohort alone, because its name can be a patient's."""
    folder, *below = key.split("/", 2)
    return f"{folder}/{below[0]}/…" if folder == "landing" and len(below) == 2 else key


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
    def read_version(self, key: str) -> tuple[bytes, str]:
        """The whole object, and its version for `swap`."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def swap(self, key: str, data: bytes, version: str | None) -> None:
        """Write an object if it still has this ``version``; ``None``: if there is none.

        Raises
        ------
        ObjectChanged
            If it has another one. Two callers that have read the same version never both succeed.
        """

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
        self.write(key, to_json(value))

    def adopt_folder(self, folder: Path, prefix: str) -> list[str]:
        """Store every file below ``folder``, which the caller then discards; names below ``prefix``, sorted."""
        return self._each_file(folder, prefix, self.upload)

    def _each_file(self, folder: Path, prefix: str, store_one: Callable[[Path, str], None]) -> list[str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        # What a killed process had not finished writing is nobody's result.
        files = [path for path in files if not _TEMPORARY.search(path.name)]
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
            raise StorageError(f"{told(key)} is no plain file")
        return path

    def list_objects(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        folder = self.path(prefix)
        if folder.resolve() == folder:  # no link in the place of the folder or of one above it
            yield from self._walk(folder, prefix, after)

    def _walk(self, folder: Path, prefix: str, after: str) -> Iterator[ObjectInfo]:
        if prefix + "/" < after and not after.startswith(prefix + "/"):
            return
        with file_errors(prefix):
            # A folder sorts as "name/", which is the order of the keys below it. A link could lead out of the root,
            # or round in a circle: it is no folder, wherever it leads.
            named = [
                (item.name + ("/" if item.is_dir(follow_symlinks=False) else ""), item) for item in _entries(folder)
            ]
        for name, entry in sorted(named, key=lambda item: item[0]):
            key = f"{prefix}/{entry.name}"
            if name.endswith("/"):
                yield from self._walk(Path(entry.path), key, after)
            elif key > after and not _TEMPORARY.search(key):
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted since the folder was read
                plain = stat.S_ISREG(info.st_mode)
                yield ObjectInfo(key, info.st_size if plain else 0, f"{info.st_size:x}-{info.st_mtime_ns:x}", plain)

    def folders(self, prefix: str) -> list[str]:
        with file_errors(prefix):
            entries = _entries(self.path(prefix))
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.is_symlink())

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def read(self, key: str, max_bytes: int | None = None) -> bytes:
        with file_errors(key), self._plain(key).open("rb") as file:
            data = file.read(-1 if max_bytes is None else max_bytes + 1)
        return _bounded(key, data, max_bytes)

    def write(self, key: str, data: bytes) -> None:
        with file_errors(key):
            write_atomic(self.path(key), data)

    def read_version(self, key: str) -> tuple[bytes, str]:
        data = self.read(key)
        return data, hashlib.sha256(data).hexdigest()

    def swap(self, key: str, data: bytes, version: str | None) -> None:
        with file_errors(key), alone_in(self.path(key).parent):
            try:
                found = self.read_version(key)[1]
            except ObjectMissing:
                found = None
            if found != version:
                raise ObjectChanged(f"{told(key)} was written by somebody else meanwhile")
            self.write(key, data)

    def upload(self, source: Path, key: str) -> None:
        source.stat()  # a file that is not there must not pass for a missing object
        self._place(source, key, shutil.copyfile)

    def download(self, key: str, target: Path) -> None:
        with file_errors(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(self._plain(key), target)

    def copy(self, source: str, target: str) -> None:
        if source == target:
            return
        if not self.exists(source):
            raise ObjectMissing(f"there is no object {told(source)}")
        self._place(self._plain(source), target, _link_or_copy)

    def adopt_folder(self, folder: Path, prefix: str) -> list[str]:
        return self._each_file(folder, prefix, lambda path, key: self._place(path, key, _link_or_copy))

    def _place(self, source: Path, key: str, transfer: Callable[[Path, Path], object]) -> None:
        target = self.path(key)
        temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")  # a name that no listing shows
        with file_errors(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                transfer(source, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with file_errors(key):
                self.path(key).unlink(missing_ok=True)
                self._remove_empty(self.path(key).parent)

    def delete_folder(self, prefix: str) -> None:
        """Also what a killed process had not finished writing there."""
        folder = self.path(prefix)
        with file_errors(prefix), suppress(FileNotFoundError):  # somebody else may be at it too
            shutil.rmtree(folder)
        self._remove_empty(folder.parent)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.root and not _entries(folder):
            try:
                folder.rmdir()
            except OSError:
                return  # somebody wrote into it, or removed it, meanwhile
            folder = folder.parent


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds; nothing if it is not there (any more)."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


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


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system takes back from a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
        raise StorageError(f"{told(key)} is larger than the {max_bytes} bytes allowed for it")
    return data


@contextmanager
def file_errors(key: str) -> Iterator[None]:
    """Turn what the file system says about an object into StorageError, without a path of this machine."""
    try:
        yield
    except FileNotFoundError:
        raise ObjectMissing(f"there is no object {told(key)}") from None
    except OSError as error:
        raise StorageError(f"{told(key)}: {error.strerror or type(error).__name__}") from None
