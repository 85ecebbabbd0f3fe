"""The processes of a local job, whoever their parent is now."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

ROOT_VARIABLE = "PENUMO_OPT_ML"


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
