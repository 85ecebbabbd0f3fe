"""Frozen job specifications: what is to run, on which objects, printed and compared without running.

Assets build a spec, a `JobRunner` (`runner.py`) runs it, and what comes back is an immutable `JobResult`.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import penumo_assets
from penumo_assets.jobs.contract import KEPT_NAMES, is_host_result, share
from penumo_assets.resources.compute.packages import constraints

JOB_NAME_LIMIT = 63
BUNDLE_PACKAGES = ("configs", "imaging", "jobs", "metrics", "models")
BUNDLE_DATA = (
    "configs/*.yaml",
    "jobs/prepare/requirements.txt",
    "metrics/report/*.css",
    "metrics/report/*.html",
    "metrics/report/*.json",
    "models/requirements.txt",
    "models/weights/*.json",
    "models/weights/*.safetensors",
)


class JobFailed(RuntimeError):
    """The job ended without a result; the message is the program's own reason.

    ``log_tail`` holds the last lines of its log, ``metadata`` facts about the run. ``transient`` says that
    the cause was not the program (no capacity, a fault of the service): the same job may succeed later.
    """

    def __init__(
        self,
        message: str,
        *,
        log_tail: str = "",
        metadata: Mapping[str, Any] | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.log_tail = log_tail
        self.metadata = dict(metadata or {})
        self.transient = transient


@dataclass(frozen=True)
class JobInput:
    """Objects ``prefix/name`` that a job finds at ``<input folder>/name``.

    ``by_item``: what each item of the job's work needs, in the order of its list, where hosts share that out: a host
    may then find the objects of its own items only.
    """

    prefix: str
    names: tuple[str, ...]
    by_item: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of_items(cls, prefix: str, by_item: Iterable[Iterable[str]]) -> "JobInput":
        given = tuple(tuple(names) for names in by_item)
        return cls(prefix, _distinct(given), given)

    def share_of(self, host: int, hosts: int) -> tuple[str, ...]:
        """Names of what falls to one host."""
        return _distinct(share(self.by_item, host, hosts))


def _distinct(by_item: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({name for names in by_item for name in names}))


@dataclass(frozen=True)
class JobSpec:
    """What to run and on what.

    A ``processing`` job finds ``inputs`` and ``documents`` under ``/opt/ml/processing/input/{name}`` and
    leaves ``outputs`` under ``/opt/ml/processing/output/{name}``. A ``training`` job finds them as channels
    (``SM_CHANNEL_{NAME}``) and leaves model.tar.gz and its output data.

    Attributes
    ----------
    program : name of the module in ``penumo_assets.jobs`` that runs.
    arguments : command line; for a training job its hyperparameters.
    documents : small files written by the caller, by input name and file name.
    environment : additional variables, visible in the job's description: no secrets.
    secrets : names of variables passed from the orchestrator's environment, never stored or logged.
    result_output : the output that holds ``result.json``.
    keeps : what a failed attempt has left is part of the next one's outputs; it finds what says so as the input `KEPT`.
    image : the container image, or whatever else names the environment that the program runs in; runners set it.
    digest_key : secret with which the digest is keyed, where inputs and documents name patients: a job's name is seen
        by many, and must not let them test whom they guess.
    """

    kind: Literal["processing", "training"]
    program: str
    asset: str
    partition: str | None
    arguments: tuple[str, ...] = ()
    inputs: Mapping[str, JobInput] = field(default_factory=dict)
    documents: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    result_output: str = "result"
    keeps: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    max_runtime_seconds: int = 24 * 3600
    image: str = ""
    digest_key: str = field(default="", repr=False)

    def kept_files(self, outputs: Mapping[str, Iterable[str]], read: Callable[[str], bytes]) -> dict[str, bytes]:
        """The input `KEPT` after attempts that left ``outputs``, names by output; ``read`` gives a file of the result
        output."""
        left = {output: sorted(names) for output, names in outputs.items()}
        files = {name: read(name) for name in left[self.result_output] if not is_host_result(name)}
        return files | {KEPT_NAMES: json.dumps(left).encode()}

    def digest(self) -> str:
        """Names this work: same code, packages, image, inputs and settings, same digest.

        The environment is left out: it says where to report to, not what to compute.
        """
        content = {
            "kind": self.kind,
            "program": self.program,
            "arguments": self.arguments,
            "inputs": {name: [item.prefix, item.names] for name, item in self.inputs.items()},
            "documents": {
                name: {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
                for name, files in self.documents.items()
            },
            "outputs": self.outputs,
            "code": bundle_digest(),
            "image": self.image,
        }
        data = json.dumps(content, sort_keys=True).encode()
        return hmac.new(self.digest_key.encode(), data, hashlib.sha256).hexdigest()

    def job_name(self, prefix: str, attempt: int) -> str:
        """Deterministic, unique name of one attempt: at most 63 characters of [A-Za-z0-9-]."""
        tail = f"{self.digest()[:12]}-{attempt}"
        words = "-".join(part for part in (prefix, self.asset, self.partition or "") if part)
        words = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-")
        return f"{words[: JOB_NAME_LIMIT - len(tail) - 1].rstrip('-')}-{tail}"


@dataclass(frozen=True)
class JobResult:
    """What a finished job left behind.

    Attributes
    ----------
    values : the content of its ``result.json``.
    output_prefix : key prefix below which outputs lie as ``{output}/{name}``.
    outputs : names below each output, sorted.
    metadata : facts about the run for the asset (job name, status, seconds, attempt ...).
    """

    job_name: str
    values: dict[str, Any]
    output_prefix: str
    outputs: dict[str, tuple[str, ...]]
    metadata: dict[str, Any]

    def key(self, output: str, name: str) -> str:
        return f"{self.output_prefix}/{output}/{name}"


@cache
def bundle_digest() -> str:
    """SHA-256 over the sources that run inside a job, and the versions of the packages that they run with."""
    digest = hashlib.sha256(constraints())
    for name, path in bundle_files().items():
        digest.update(name.encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def bundle_files() -> dict[str, Path]:
    """The sources that run inside a job, by their names below the package, sorted.

    Whoever may read a job's inputs reads them, so nothing else that lies about goes with them: no hidden file, none of
    another kind, and nothing that is reached through a link.

    Raises
    ------
    RuntimeError
        If the package itself is installed as links, so that nothing is left.
    """
    root = Path(penumo_assets.__file__).parent
    patterns = ["__init__.py", *(f"{package}/**/*.py" for package in BUNDLE_PACKAGES), *BUNDLE_DATA]
    found = {path.relative_to(root).as_posix(): path for pattern in patterns for path in root.glob(pattern)}
    if not _is_source(root, "__init__.py"):
        raise RuntimeError(
            "penumo_assets is installed as links, which no job gets: install it as files or as a checkout"
        )
    return {name: found[name] for name in sorted(found) if _is_source(root, name)}


def _is_source(root: Path, name: str) -> bool:
    path = root / name
    is_hidden = any(part.startswith(".") for part in name.split("/"))
    return path.is_file() and not is_hidden and path.resolve() == root.resolve() / name
