"""Which processes work in a job's folder: the locks that they hold on it, and the processes themselves.

The operating system releases a lock when the process that holds it ends, however it ends.
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

CLAIM_NAME = "claim.json"
ROOT_VARIABLE = "PENUMO_OPT_ML"


def claim(folder: Path, work: Mapping[str, Any]) -> int | None:
    """Make ``folder``, hold its claim and note whose ``work`` it is for; None if the folder is there already.

    Returns the open file that is the claim: it lives as long as any process has inherited it. The folder appears
    together with its claim, so nobody ever sees it unclaimed while its maker lives.
    """
    draft = folder.with_name(f".{uuid.uuid4().hex}.claim")
    draft.mkdir(parents=True)
    handle = os.open(draft / CLAIM_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, json.dumps(work).encode())
        draft.rename(folder)
    except OSError:
        os.close(handle)
        shutil.rmtree(draft, ignore_errors=True)
        if folder.exists():
            return None
        raise
    return handle


def is_held(folder: Path) -> bool:
    """Whether any living process has the folder's claim."""
    return _is_locked(folder / CLAIM_NAME, fcntl.LOCK_SH)


def use(folder: Path) -> int | None:
    """Take a share in a folder in which nobody works any more, so that nobody clears it away; close it to let go.

    Call it, and `is_used`, under the `folder_lock` of the folder above; None if the folder has gone.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def is_used(folder: Path) -> bool:
    """Whether any living process has a share in the folder."""
    return _is_locked(folder, fcntl.LOCK_EX)


def work_of(folder: Path) -> Any:
    """What a folder was claimed for; None if that is not known."""
    try:
        return json.loads((folder / CLAIM_NAME).read_bytes())
    except (OSError, ValueError):
        return None


def _is_locked(path: Path, kind: int) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def family_of(root: Path) -> list[psutil.Process]:
    """Every process of the job whose files lie below ``root``: each has inherited the variable that says so."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(ROOT_VARIABLE) == str(root):
                found.append(process)
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """End them at once, and wait until they have gone."""
    survivors = list(processes)
    for process in survivors:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(survivors, timeout=5)
