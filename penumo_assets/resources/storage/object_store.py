"""What an object store can do, which keys it takes, and what it refuses. The stores follow it one by one."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Backslashes; characters that cannot be seen, turn the direction of what follows or end a line; halves of characters,
# which stand for bytes that are no UTF-8.
_UNSAFE = re.compile(
    "[\\\\\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_MAX_NAME_BYTES = 240  # of a folder or file; most file systems take 255, and a temporary or derived name needs some
_MAX_KEY_BYTES = 1000  # S3 takes 1,024, prefix included
UNSAFE_NAME = "its name cannot be a file's: land it again under another one"
TEMPORARY = re.compile(r"(^|/)\.[^/]*\.tmp$")


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
    so that somebody can say what became of them, and never read. ``archived``: in a storage class that nobody can read
    from before the object is restored.
    """

    key: str
    size: int
    etag: str
    plain: bool = True
    archived: bool = False


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
        raise StorageError(f"not a valid object key: {redacted(key)!r}")
    return key


def is_landed(key: str) -> bool:
    """Whether an object lies where its sender wrote it, content, name and metadata."""
    return key.startswith("landing/")


def redacted(key: str) -> str:
    """How messages name an object: one in landing by its cohort alone, because its name can be a patient's."""
    folder, *below = key.split("/", 2)
    return f"{folder}/{below[0]}/…" if folder == "landing" and len(below) == 2 else key


def refuse_large(key: str, size: int, max_bytes: int | None) -> None:
    """Raise StorageError for an object of more than ``max_bytes``; ``None``: any size will do."""
    if max_bytes is not None and size > max_bytes:
        raise StorageError(f"{redacted(key)} is larger than the {max_bytes} bytes allowed for it")


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
        files = [path for path in files if not TEMPORARY.search(path.name)]
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
