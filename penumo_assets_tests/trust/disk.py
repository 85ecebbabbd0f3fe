"""A disk that is full, and a store that may only be read: for the whole file system, and at each write in turn."""

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penumo_assets.resources.storage import file_store
from penumo_assets_tests.trust.kills import Chain, run_to_end
from penumo_assets_tests.trust.outcome import Outcome
from penumo_assets_tests.trust.stages import Stage
from penumo_assets_tests.trust.witness import read_notes, watching

MIB = 2**20


@contextmanager
def small_disk(folder: Path, size_mib: int = 2048) -> Iterator[Path]:
    """A file system of its own in memory.

    Raises
    ------
    PermissionError
        If this process may not mount one.
    """
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        raise PermissionError("this process may not mount a file system of its own")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disturb_disk(chain: Chain, disk: Path, stage: Stage, kind: str, chance: random.Random) -> Outcome:
    """Launch a stage on a disk with too little space, or that may only be read; then mend it and launch again.

    The launch must fail, or come to the right end with what space there was; after it, one launch must do.
    """
    here, outcome = chain.installation, Outcome(stage.name, kind)
    here.restore(stage.name)
    with watching(here.store, here.database, here.notes / "witness.json"):
        with full_disk(disk, chance.randrange(4 * MIB)) if kind == "disk full" else read_only(disk):
            _, status = os.waitpid(here.launch(stage.run), 0)
        if status != 0:
            said = here.said()
            outcome.unclear += [] if _is_clear(said, disk) else [said]
            outcome.launches += 1
            outcome.lost = run_to_end(here, stage, outcome) != 0
    outcome.looks, outcome.corrupted = read_notes(here.notes / "witness.json")
    chain.compare(stage, outcome)
    return outcome


@contextmanager
def full_disk(disk: Path, free: int) -> Iterator[None]:
    """A disk with ``free`` bytes left."""
    ballast = disk / "ballast"
    space = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - free))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


@contextmanager
def failing_writes(after: int, number: int = errno.ENOSPC) -> Iterator[list[int]]:
    """Every write into a store of files fails once ``after`` have been done; the list counts them in its one item."""
    done = [0]

    def counted(write):
        def attempt(*arguments, **options):
            done[0] += 1
            if done[0] > after:
                raise OSError(number, os.strerror(number), str(arguments[0]))
            return write(*arguments, **options)

        return attempt

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_atomic", "_link_or_copy"):
            patch.setattr(file_store, name, counted(getattr(file_store, name)))
        patch.setattr(file_store.shutil, "copyfile", counted(file_store.shutil.copyfile))
        yield done


def _is_clear(said: str, disk: Path) -> bool:
    """A failure names the fault, and no path of this machine."""
    named = any(os.strerror(number) in said for number in (errno.ENOSPC, errno.EROFS)) or "disk" in said
    named = named or "readonly database" in said  # MLflow's word for it
    return named and str(disk) not in said
