"""The packages of a job by their versions: those that this installation has, and so was tested with."""

from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import penumo_assets


@cache
def constraints() -> bytes:
    """A constraints file for pip: a line ``name==version`` for all that the job programs' requirements bring along.

    What is not installed here is left to pip.
    """
    files = sorted(Path(penumo_assets.__file__).parent.glob("*/**/requirements.txt"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    todo = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]
    found: dict[str, str] = {}
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        installed = None if name in found else _installed(name)
        if installed is not None:
            found[name] = installed.version.partition("+")[0]  # an image has builds of its own
            todo += [needed for needed in map(Requirement, installed.requires or ()) if _applies(needed)]
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items())).encode()


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _applies(needed: Requirement) -> bool:
    return needed.marker is None or needed.marker.evaluate({"extra": ""})
