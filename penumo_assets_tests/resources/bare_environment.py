"""A virtual environment like a job's container: what the image brings, what requirements.txt names, nothing else.

Nothing is downloaded: the packages are links to those of the environment that runs the tests.
"""

import importlib.metadata
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What SageMaker's PyTorch image brings and the job programs use.
IMAGE_PACKAGES = ("torch", "torchvision", "numpy", "boto3", "packaging")


def requirements(path: Path) -> list[Requirement]:
    """The lines of a requirements file."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def closure(
    roots: Iterable[Requirement], find: Callable[[str], Distribution] = importlib.metadata.distribution
) -> dict[str, Distribution]:
    """Every installed distribution that ``roots`` need, by normalised name; ``find`` knows where one is installed.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If one of them is not installed.
    """
    todo, seen = list(roots), set()
    found: dict[str, Distribution] = {}
    while todo:
        wanted = todo.pop()
        distribution = find(wanted.name)
        name = canonicalize_name(distribution.metadata["Name"])
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        found[name] = distribution
        for text in distribution.requires or ():
            needed = Requirement(text)
            extras = wanted.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return found


def build(folder: Path, distributions: Iterable[Distribution]) -> Path:
    """Make the environment at ``folder`` and return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    for distribution in distributions:
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                _link(Path(str(distribution.locate_file(""))), site, file.parts)
    return folder / "bin" / "python"


def _link(origin: Path, site: Path, parts: tuple[str, ...]) -> None:
    """Link the package that a file belongs to: whole, unless several distributions share its folder."""
    for depth in range(1, len(parts) + 1):
        source, target = origin.joinpath(*parts[:depth]), site.joinpath(*parts[:depth])
        if target.is_symlink():
            return
        shared = source.is_dir() and not (source / "__init__.py").exists() and source.suffix != ".dist-info"
        if not shared:
            target.symlink_to(source)
            return
        target.mkdir(exist_ok=True)


def importable(python: Path, names: Iterable[str]) -> set[str]:
    """Which of the modules ``names`` the interpreter finds."""
    code = "import importlib.util, sys; print(*[n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    output = subprocess.run([python, "-I", "-c", code, *names], capture_output=True, text=True, check=True).stdout
    return set(output.split())
