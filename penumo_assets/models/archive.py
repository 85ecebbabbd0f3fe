"""Open a model.tar.gz that may come from anywhere, without trusting it."""

import tarfile
import zlib
from pathlib import Path, PurePosixPath

from penumo_assets.models.errors import ModelError

METADATA_NAME = "metadata.json"
MAX_ARCHIVE_BYTES = 2 * 1024**3
MAX_MEMBERS = 1000


def extract_model_archive(model_tar_gz: Path, into: Path, max_bytes: int = MAX_ARCHIVE_BYTES) -> Path:
    """Unpack a SageMaker ``model.tar.gz`` into ``into``; returns the folder that holds ``metadata.json``.

    Only plain files and folders with relative names inside ``into`` are written, at most
    ``max_bytes`` in all.

    Raises
    ------
    ModelError
        If the archive is broken, too large, or holds a link, a device or a name that leads outside.
    """
    into.mkdir(parents=True, exist_ok=True)
    total = 0
    try:
        with tarfile.open(model_tar_gz, mode="r:gz") as archive:
            for count, member in enumerate(archive, start=1):
                total += member.size
                _check(member, total, count, max_bytes)
                archive.extract(member, into, set_attrs=False, filter="data")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ModelError(f"{model_tar_gz.name} cannot be unpacked: {type(error).__name__}: {error}") from error
    found = sorted(into.rglob(METADATA_NAME), key=lambda path: len(path.parts))
    if not found:
        raise ModelError(f"{model_tar_gz.name} holds no {METADATA_NAME}")
    return found[0].parent


def _check(member: tarfile.TarInfo, total: int, count: int, max_bytes: int) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise ModelError(f"the model archive holds a name that leads outside: {member.name!r}")
    if not (member.isreg() or member.isdir()):
        raise ModelError(f"the model archive holds a link or a device: {member.name!r}")
    if total > max_bytes or count > MAX_MEMBERS:
        raise ModelError(f"the model archive is larger than {max_bytes} bytes or {MAX_MEMBERS} members")


def read_member(model_tar_gz: Path, name: str, max_bytes: int) -> bytes:
    """One plain file of a ``model.tar.gz``, without unpacking the rest.

    Raises
    ------
    ModelError
        If the archive is broken, or ``name`` is absent, not a plain file, or larger than ``max_bytes``.
    """
    try:
        with tarfile.open(model_tar_gz, mode="r:gz") as archive:
            for count, member in enumerate(archive, start=1):
                if count > MAX_MEMBERS:
                    break
                if member.name.removeprefix("./") == name and member.isreg() and member.size <= max_bytes:
                    file = archive.extractfile(member)
                    return file.read() if file else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ModelError(f"{model_tar_gz.name} cannot be read: {type(error).__name__}: {error}") from error
    raise ModelError(f"{model_tar_gz.name} holds no file {name} of at most {max_bytes} bytes")
