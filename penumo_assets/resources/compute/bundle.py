"""The sources that run inside a job, as one archive that is named by its content and uploaded once."""

import gzip
import hashlib
import io
import tarfile
from functools import cache
from pathlib import Path

from penumo_assets.resources.compute.packages import constraints
from penumo_assets.resources.compute.sagemaker import start
from penumo_assets.resources.compute.spec import JobInput, bundle_digest, bundle_files
from penumo_assets.resources.storage.object_store import ObjectStore, StorageError

START_NAME = "start.py"


@cache
def source_bundle() -> bytes:
    """A .tar.gz of ``configs, imaging, jobs, metrics, models`` and ``constraints.txt``: same sources, same bytes."""
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        files = {name: path.read_bytes() for name, path in bundle_files().items()}
        for name, data in (files | {start.CONSTRAINTS_NAME: constraints()}).items():
            member = tarfile.TarInfo(f"{start.PACKAGE}/{name}")
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return target.getvalue()


def publish_bundle(store: ObjectStore) -> JobInput:
    """The bundle and its start program in the store; uploaded unless just these bytes are there.

    They lie where no job may write: what is there is what every later job runs.
    """
    program = Path(start.__file__).read_bytes()
    prefix = f"code/{bundle_digest()[:32]}-{hashlib.sha256(program).hexdigest()[:8]}"
    files = {start.BUNDLE_NAME: source_bundle(), START_NAME: program}
    for name, data in files.items():
        if not _holds(store, f"{prefix}/{name}", data):
            store.write(f"{prefix}/{name}", data)
    return JobInput(prefix, tuple(files))


def _holds(store: ObjectStore, key: str, data: bytes) -> bool:
    try:
        return store.read(key, max_bytes=len(data)) == data
    except StorageError:
        return False  # absent, larger or damaged; what keeps it from being read now fails the writing
