"""Open a model.tar.gz that may come from anywhere, without trusting it."""

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from penumo_assets.models.errors import ModelError

METADATA_NAME = "metadata.json"
WEIGHTS_NAME = "model.safetensors"
MAX_ARCHIVE_BYTES = 2 * 1024**3
MAX_MEMBERS = 1000
_MAX_NAME = 512
_MAX_FOLDERS = 32
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_EXTENDED_BYTES = 8 * 1024  # what a long name, times and labels of a security module can need
_NOT_READ = (tarfile.GNUTYPE_SPARSE, tarfile.XGLTYPE)  # the latter's attributes pile up from member to member
_KIND_OR_SIZE = "the model archive holds a member of a kind or a size that is not read"


class _Member(tarfile.TarInfo):
    """A header that is checked before tarfile acts on it: it reads names, attributes and maps into memory whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or member.type in _NOT_READ:
            raise ModelError(_KIND_OR_SIZE)
        if member.type in _EXTENDED and member.size > _MAX_EXTENDED_BYTES:
            raise ModelError("the model archive holds a name or attributes of impossible length")
        return member

    def _refuse_sparse(self, *_: object) -> None:
        """A sparse member's size is not what it takes to read or to write it."""
        raise ModelError(_KIND_OR_SIZE)

    # What tarfile calls for the three ways in which attributes can declare a member sparse.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


@contextmanager
def open_archive(
    path: Path, max_bytes: int = MAX_ARCHIVE_BYTES
) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """A ``tar.gz`` and its members one after the other, each checked before it is handed over.

    Members are plain files and folders with relative names, none twice, at most ``max_bytes`` and `MAX_MEMBERS` in all.

    Raises
    ------
    ModelError
        If the archive is broken, too large, or holds a link, a device, a name twice or one that leads outside.
    """
    try:
        with tarfile.open(path, mode="r:gz", tarinfo=_Member) as archive:
            yield archive, _members(archive, max_bytes)
    except ModelError:
        raise
    except (tarfile.TarError, EOFError, OSError, RecursionError, ValueError, zlib.error) as error:
        # The error's text can hold a path of this machine, or whatever name the archive gives.
        fault = getattr(error, "strerror", None) or type(error).__name__  # a full disk is not the archive's fault
        raise ModelError(f"{path.name} cannot be unpacked: {fault}") from error


def extract_archive(path: Path, into: Path, max_bytes: int = MAX_ARCHIVE_BYTES) -> None:
    """Unpack a ``tar.gz`` into ``into``, as `open_archive` lets it; times, owners and modes are left out."""
    into.mkdir(parents=True, exist_ok=True)
    with open_archive(path, max_bytes) as (archive, members):
        for member in members:
            archive.extract(member, into, set_attrs=False, filter="data")


def extract_model_archive(model_tar_gz: Path, into: Path, max_bytes: int = MAX_ARCHIVE_BYTES) -> Path:
    """Unpack a SageMaker ``model.tar.gz`` into ``into``; returns the folder that holds ``metadata.json``.

    Raises
    ------
    ModelError
        As `open_archive` does, and if there is no metadata.json, or more than one that may be meant.
    """
    extract_archive(model_tar_gz, into, max_bytes)
    found = sorted(into.rglob(METADATA_NAME), key=lambda path: len(path.parts))
    if not found:
        raise ModelError(f"{model_tar_gz.name} holds no {METADATA_NAME}")
    if len(found) > 1 and len(found[0].parts) == len(found[1].parts):
        raise ModelError(f"{model_tar_gz.name} holds more than one {METADATA_NAME}")
    return found[0].parent


def read_member(model_tar_gz: Path, name: str, max_bytes: int) -> bytes:
    """One plain file of a ``model.tar.gz``, without unpacking the rest.

    Raises
    ------
    ModelError
        As `open_archive` does, and if ``name`` is absent or larger than ``max_bytes``.
    """
    with open_archive(model_tar_gz) as (archive, members):
        for member in members:
            if bare_name(member) == name and member.isreg() and member.size <= max_bytes:
                file = archive.extractfile(member)
                return file.read() if file else b""
    raise ModelError(f"{model_tar_gz.name} holds no file {name} of at most {max_bytes} bytes")


def _members(archive: tarfile.TarFile, max_bytes: int) -> Iterator[tarfile.TarInfo]:
    total, names = 0, set()
    for count, member in enumerate(archive, start=1):
        member.pax_headers = {}  # they are applied, and tarfile keeps all members
        _check(member)
        total += member.size
        # Some file systems take names that differ in case for one.
        name = bare_name(member).casefold()
        if member.isreg() and name in names:
            raise ModelError(f"the model archive holds a name twice: {member.name!r}")
        names.add(name)
        if total > max_bytes or count > MAX_MEMBERS:
            raise ModelError(f"the model archive is larger than {max_bytes} bytes or {MAX_MEMBERS} members")
        yield member


def _check(member: tarfile.TarInfo) -> None:
    if member.size < 0:  # attributes may say so where the header does not
        raise ModelError(_KIND_OR_SIZE)
    path = PurePosixPath(member.name)
    if len(member.name) > _MAX_NAME or len(path.parts) > _MAX_FOLDERS or not member.name.isprintable():
        raise ModelError(f"the model archive holds a name that is not allowed: {member.name[:80]!r}")
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise ModelError(f"the model archive holds a name that leads outside: {member.name!r}")
    if not (member.isreg() or member.isdir()):
        raise ModelError(f"the model archive holds a link or a device: {member.name!r}")


def bare_name(member: tarfile.TarInfo) -> str:
    """A member's name without the dots and slashes that mean nothing (``./a`` is ``a``)."""
    return str(PurePosixPath(member.name))
