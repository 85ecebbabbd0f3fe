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


def require_java() -> None:
    """TorchServe is a Java program."""
    try:
        subprocess.run(["java", "-version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("TorchServe needs Java 17 (Debian: default-jre-headless)")


def python_path(folder: Path) -> str:
    """AWS's packages first, then those of the environment that runs the tests: torch, cv2 and the like."""
    return os.pathsep.join([str(_packages(folder)), *site.getsitepackages()])


def _packages(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
