"""Objects as files below a folder (``file://``)."""

import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from penumo_assets.jobs.contract import write_atomic
from penumo_assets.resources.storage.object_store import (
    TEMPORARY,
    ObjectChanged,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    StorageError,
    check_key,
    redacted,
    refuse_large,
)


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
            raise StorageError(f"{redacted(key)} is no plain file")
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
            elif key > after and not TEMPORARY.search(key):
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
        refuse_large(key, len(data), max_bytes)
        return data

    def write(self, key: str, data: bytes) -> None:
        with file_errors(key):
            write_atomic(self.path(key), data)

    def read_version(self, key: str) -> tuple[bytes, str]:
        data = self.read(key)
        return data, hashlib.sha256(data).hexdigest()

    def swap(self, key: str, data: bytes, version: str | None) -> None:
        with file_errors(key), folder_lock(self.path(key).parent):
            try:
                found = self.read_version(key)[1]
            except ObjectMissing:
                found = None
            if found != version:
                raise ObjectChanged(f"{redacted(key)} was written by somebody else meanwhile")
            # A record stands for the objects it names: they must be on the disk before it is, should the power fail.
            os.sync()
            write_atomic(self.path(key), data, durable=True)

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
            raise ObjectMissing(f"there is no object {redacted(source)}")
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


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases when the process ends, however it ends."""
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


@contextmanager
def file_errors(key: str) -> Iterator[None]:
    """Turn what the file system says about an object into StorageError, without a path of this machine."""
    try:
        yield
    except FileNotFoundError:
        raise ObjectMissing(f"there is no object {redacted(key)}") from None
    except OSError as error:
        raise StorageError(f"{redacted(key)}: {error.strerror or type(error).__name__}") from None
