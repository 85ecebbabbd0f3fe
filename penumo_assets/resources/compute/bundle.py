"""The sources that run inside a job, as one archive that is named by its content and uploaded once."""

import gzip
import hashlib
import io
import tarfile
from functools import cache
from pathlib import Path

import penumo_assets
from penumo_assets.resources.compute import sagemaker_start
from penumo_assets.resources.compute.spec import BUNDLE_PACKAGES, JobInput, bundle_digest
from penumo_assets.resources.object_store import ObjectStore

START_NAME = "start.py"


@cache
def source_bundle() -> bytes:
    """A .tar.gz of ``configs, imaging, jobs, metrics, models``: same sources, same bytes."""
    root = Path(penumo_assets.__file__).parent
    files = [root / "__init__.py"]
    for package in BUNDLE_PACKAGES:
        found = sorted((root / package).rglob("*"))
        files += [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path in files:
            data = path.read_bytes()
            member = tarfile.TarInfo(f"{root.name}/{path.relative_to(root).as_posix()}")
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return target.getvalue()


def publish_bundle(store: ObjectStore) -> JobInput:
    """The bundle and its start program in the store; uploaded only if they are not there yet."""
    program = Path(sagemaker_start.__file__).read_bytes()
    prefix = f"jobs/code/{bundle_digest()[:32]}-{hashlib.sha256(program).hexdigest()[:8]}"
    if not store.exists(f"{prefix}/{START_NAME}"):
        store.write(f"{prefix}/{sagemaker_start.BUNDLE_NAME}", source_bundle())
        store.write(f"{prefix}/{START_NAME}", program)  # last: where it stands, the bundle stands
    return JobInput(prefix, (sagemaker_start.BUNDLE_NAME, START_NAME))
