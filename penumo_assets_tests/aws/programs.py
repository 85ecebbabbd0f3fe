"""AWS's own programs, in an environment of their own: what runs inside AWS's images when a job or an endpoint starts.

``PENUMO_AWS_PROGRAMS`` names that environment; ``.ci/run`` makes it. Without it the tests that need one are skipped.
"""

import os
import site
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

VARIABLE = "PENUMO_AWS_PROGRAMS"
PACKAGES = "sagemaker-training==5.1.4 sagemaker-pytorch-inference torchserve torch-model-archiver"


@cache
def environment() -> Path | None:
    """The folder of the environment; None if there is none."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder and (Path(folder) / "bin" / "train").exists() else None


def site_packages() -> list[Path]:
    """Where its packages are; empty if there is none."""
    folder = environment()
    return [_packages(folder)] if folder else []


def required() -> Path:
    """The environment's folder; skips the test where there is none."""
    folder = environment()
    if folder is None:
        pytest.skip(f"AWS's programs are not here: a virtual environment with {PACKAGES}, named by {VARIABLE}")
    return folder


@cache
def has_java() -> bool:
    """TorchServe is a Java program."""
    try:
        return subprocess.run(["java", "-version"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def has_torchserve() -> bool:
    """Whether AWS's `serve` can run; otherwise endpoints are answered by our own."""
    return environment() is not None and has_java()


def require_java() -> None:
    """Skips the test where TorchServe cannot run."""
    if not has_java():
        pytest.skip("TorchServe needs Java 17 (Debian: default-jre-headless)")


def python_path(folder: Path) -> str:
    """AWS's packages first, then those of the environment that runs the tests: torch, cv2 and the like."""
    return os.pathsep.join([str(_packages(folder)), *site.getsitepackages()])


def _packages(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
