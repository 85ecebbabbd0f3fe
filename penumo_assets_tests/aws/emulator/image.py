"""Container images as environments of links: of what is installed here, what an image's list of packages names.

A job in one sees nothing else: not this checkout, not the packages of its tests, and no network but loopback. What
links cannot give is said here: Python is this one (AWS's image has 3.12), the packages are the lock's versions, and
what nobody installs here (deepspeed, opencv-python with its windows) is lacking.
"""

import hashlib
import json
import re
import shutil
import sys
import sysconfig
import tempfile
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distributions
from pathlib import Path
from string import Template
from threading import Lock
from typing import Any

from packaging.requirements import Requirement

import penumo_assets
from penumo_assets_tests.aws import programs
from penumo_assets_tests.aws.emulator.rules import ApiError
from penumo_assets_tests.resources import bare_environment

# What https://github.com/aws/deep-learning-containers/blob/main/docker/pytorch/2.13/cpu/pyproject.toml asks for, the
# extra of SageMaker included; with all that these bring along, it is what the image has.
AWS_PACKAGES = (
    *("torch", "torchvision", "torchaudio", "deepspeed", "fastai", "boto3", "botocore", "pyyaml", "requests"),
    *("packaging", "urllib3", "python-multipart", "starlette", "GitPython", "Mako", "mpi4py", "scipy", "scikit-learn"),
    *("opencv-python", "msgpack", "soupsieve", "click", "pillow", "smclarify", "sagemaker", "sagemaker-training"),
    *("sagemaker-pytorch-training", "mlflow", "bokeh", "imageio", "numba", "pandas", "plotly", "shap", "seaborn"),
    *("cloudpickle", "s3fs", "aiohttp", "tornado", "cryptography", "pyasn1", "sqlparse", "pip"),
)
AWS_REPOSITORY, OUR_REPOSITORY = "pytorch", "penumo-jobs"
_PACKAGE = Path(penumo_assets.__file__).parent
_LISTS = (_PACKAGE / "jobs" / "prepare" / "requirements.txt", _PACKAGE / "models" / "requirements.txt")
_ROLE_POLICY = _PACKAGE.parent / "docs" / "aws" / "iam_job_role.json"
_MADE = _PACKAGE.parent / "build" / "images"
_building = Lock()
# Runs at every start of Python in a container: hosts have names, and there is no way out.
_NETWORK = """
import errno, ipaddress, re, socket

_resolve, _by_name, _connect = socket.getaddrinfo, socket.gethostbyname, socket.socket.connect


def _local(name):
    name = name.decode() if isinstance(name, bytes) else name
    if name in (None, "", "localhost", socket.gethostname()):
        return name
    if host := re.fullmatch(r"algo-(\\d+)", name):
        return f"127.0.0.{host[1]}"
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
    return name


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        address = (socket.getaddrinfo(address[0], None, self.family)[0][4][0], *address[1:])
        if not ipaddress.ip_address(address[0]).is_loopback:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
    return _connect(self, address)


socket.getaddrinfo = lambda host, *given, **named: _resolve(_local(host), *given, **named)
socket.gethostbyname = lambda name: _by_name(_local(name))
socket.socket.connect = connect
"""


def image_uri(params: dict[str, Any]) -> str:
    """The image that a request, or the definition of a tuning job's trainings, names."""
    program = program_of(params)
    return program.get("ImageUri") or program["TrainingImage"]


def program_of(params: dict[str, Any]) -> dict[str, Any]:
    """What a request says of a job's program: its image, entry point and arguments."""
    return params.get("AppSpecification") or params["AlgorithmSpecification"]


def require_image(uri: str, role: str) -> None:
    """Raises ApiError unless the repository is there and the policy of docs/aws lets the job role pull from it."""
    found = re.match(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.[a-z.]+/([^:@]+)", uri)
    account, region, repository = found.groups() if found else ("", "", uri)
    names = {"REGION": region, "ACCOUNT": role.split(":")[4]}
    policy = json.loads(Template(_ROLE_POLICY.read_text(encoding="utf-8")).safe_substitute(names))
    (pulling,) = (item["Resource"] for item in policy["Statement"] if item["Sid"] == "GetTheContainerImages")
    arn = f"arn:aws:ecr:{region}:{account}:repository/{repository}"
    if repository not in {AWS_REPOSITORY, OUR_REPOSITORY} or not any(fnmatchcase(arn, pattern) for pattern in pulling):
        raise ApiError(
            "ValidationException",
            f"Cannot find repository: {repository} in registry ID: {account} Please check if your ECR repository and "
            f"image exist and role {role} has proper pull permissions for SageMaker: "
            "ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer",
        )


def python_of(uri: str, folder: Path) -> Path:
    """Python of the image's environment, for one host; of AWS's, to which a job may add, of a copy in ``folder``."""
    repository = re.split("[:@]", uri.partition("/")[2])[0]
    with _building:
        image = _environment(repository)
    if repository == AWS_REPOSITORY:
        image = Path(shutil.copytree(image, folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")))
    return image / "bin" / "python3"


def _packages(repository: str) -> list[str]:
    """Names on the image's list. No job installs anything in the one that docs/aws/Dockerfile.jobs makes of AWS's."""
    if repository == AWS_REPOSITORY:
        return list(AWS_PACKAGES)
    listed = [item.name for path in _LISTS for item in bare_environment.requirements(path)]
    return [*(name for name in AWS_PACKAGES if name != "opencv-python"), *listed]


@cache
def _environment(repository: str) -> Path:
    """The image's environment. It is laid out once for all processes, below build/, and again when its parts change."""
    names = [name for name in _packages(repository) if _find(name, required=False)]
    chosen = bare_environment.closure(map(Requirement, names), _find)
    sources = [Path(path).read_bytes() for path in (__file__, bare_environment.__file__)]
    parts = sorted((name, item.version, str(item.locate_file(""))) for name, item in chosen.items())
    digest = hashlib.sha256(repr([sys.version, parts, sources]).encode()).hexdigest()[:16]
    target = _MADE / f"{repository}-{digest}"
    if not target.exists():
        _MADE.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=_MADE))
        bare_environment.build(made, chosen.values())
        site = made / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (site / "container_network.py").write_text(_NETWORK)
        (site / "container.pth").write_text("import container_network\n")
        for item in chosen.values():
            _add_programs(item, made / "bin")
        try:
            made.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(made)
    return target


def _find(name: str, required: bool = True) -> Distribution | None:
    """This environment's before that of AWS's programs."""
    for folder in (sysconfig.get_path("purelib"), *programs.site_packages()):
        for found in distributions(name=name, path=[str(folder)]):
            return found
    if required:
        raise PackageNotFoundError(name)
    return None


def _add_programs(found: Distribution, binaries: Path) -> None:
    for script in found.entry_points.select(group="console_scripts"):
        path = binaries / script.name
        call = f"from {script.module} import {script.attr}\nsys.exit({script.attr}())"
        path.write_text(f"#!/usr/bin/env python3\nimport sys\n{call}\n")
        path.chmod(0o755)
