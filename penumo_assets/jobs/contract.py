"""What a job program may know of where it runs: SageMaker's container contract, and nothing else.

A program finds its inputs in folders that the contract names, writes its outputs to other such
folders, and writes ``result.json`` last. The same program runs inside a SageMaker container (the
root is ``/opt/ml``) and under the local runner (``PENUMO_OPT_ML`` names another root with the same
layout).

Reference: https://docs.aws.amazon.com/sagemaker/latest/dg/amazon-sagemaker-toolkits.html
"""

import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

RESULT_NAME = "result.json"
KEPT = "kept"
"""The input with what failed attempts at the same work left: files of the result output, and `KEPT_NAMES`."""
KEPT_NAMES = "outputs.json"  # the names of all that they left, by output
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class JobError(RuntimeError):
    """The job cannot succeed with these inputs; the message says what is wrong and the remedy."""


class ResultFile(BaseModel):
    """``result.json``: what a job leaves behind, written after everything else."""

    model_config = ConfigDict(extra="forbid")

    schema_: Literal["penumo/job-result/1"] = Field("penumo/job-result/1", alias="schema")
    program: str
    values: dict[str, Any] = Field(description="Numbers and short strings for the asset's metadata.")


def opt_ml() -> Path:
    """The root of the container layout."""
    return Path(os.environ.get("PENUMO_OPT_ML", "/opt/ml"))


def processing_input(name: str) -> Path:
    """Folder of a processing job's input."""
    return opt_ml() / "processing" / "input" / name


def processing_output(name: str) -> Path:
    """Folder of a processing job's output, created."""
    return _created(opt_ml() / "processing" / "output" / name)


def channel(name: str) -> Path:
    """Folder of a training job's input channel (``SM_CHANNEL_<NAME>``)."""
    return Path(os.environ.get(f"SM_CHANNEL_{name.upper()}", opt_ml() / "input" / "data" / name))


def model_dir() -> Path:
    """Where a training job leaves what becomes model.tar.gz (``SM_MODEL_DIR``), created."""
    return _created(Path(os.environ.get("SM_MODEL_DIR", opt_ml() / "model")))


def output_data_dir() -> Path:
    """Where a training job leaves its other results (``SM_OUTPUT_DATA_DIR``), created."""
    return _created(Path(os.environ.get("SM_OUTPUT_DATA_DIR", opt_ml() / "output" / "data")))


def checkpoint_dir() -> Path:
    """Where checkpoints survive a restart, created; ``PENUMO_CHECKPOINT_FOLDER`` names a folder in a shared place."""
    return _created(opt_ml() / "checkpoints" / os.environ.get("PENUMO_CHECKPOINT_FOLDER", ""))


def hosts() -> tuple[str, list[str]]:
    """This host's name and the sorted names of all hosts of the job.

    Training containers have ``SM_CURRENT_HOST`` and ``SM_HOSTS``; processing containers have
    ``/opt/ml/config/resourceconfig.json``; elsewhere there is one host, ``algo-1``.
    """
    if "SM_HOSTS" in os.environ:
        names = sorted(json.loads(os.environ["SM_HOSTS"]))
        return os.environ.get("SM_CURRENT_HOST", names[0]), names
    resource_config = opt_ml() / "config" / "resourceconfig.json"
    if resource_config.exists():
        values = json.loads(resource_config.read_text(encoding="utf-8"))
        return values["current_host"], sorted(values["hosts"])
    return "algo-1", ["algo-1"]


def share(items: Sequence[T], host: int, hosts: int) -> Sequence[T]:
    """What falls to host number ``host`` of ``hosts``, the first being 0: every item to exactly one."""
    return items[host::hosts]


def cores() -> int:
    """Processor cores that this process may use, which a container or ``taskset`` can make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(processes: int = 1) -> int:
    """CPU threads for each of ``processes`` on this host to compute with.

    ``OMP_NUM_THREADS`` where it is set, as for any program on torch, else a fair share of the cores. It matters on a
    shared machine: the threads of one convolution wait for each other by spinning, so that two of them on a busy
    core take several times the processor time of one.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) else max(1, cores() // processes)


def write_atomic(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write ``data`` under a temporary name, then give it its own: readers see all or nothing.

    ``durable``: also after the power fails, however the file system orders what it writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One JSON object a line, its keys sorted: the same rows are the same bytes."""
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()


def read_json_lines(path: Path, model: type[M]) -> list[M]:
    """The rows of a file that `json_lines` wrote, blank lines left out.

    Raises
    ------
    JobError
        If the file is missing, or a line is not valid; the message names the line and the field.
    """
    if not path.is_file():
        raise JobError(f"no {path.name} in the input {path.parent.name!r}")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                rows.append(model.model_validate_json(line))
            except ValidationError as error:
                first = error.errors(include_input=False)[0]
                field = ".".join(str(part) for part in first["loc"])
                raise JobError(f"{path.name} line {number}: {field}: {first['msg']}") from error
    return rows


def host_result_name(host: str, *, first: bool) -> str:
    """The result file of one host: hosts of one job write into one folder, and each its own."""
    return RESULT_NAME if first else f"result-{host}.json"


def is_host_result(name: str) -> bool:
    return name.startswith("result") and name.endswith(".json")


def write_result(directory: Path, program: str, values: dict[str, Any]) -> None:
    """Write ``result.json`` into ``directory``: the last thing a job does.

    Raises
    ------
    ValueError
        If ``values`` holds something JSON cannot (NaN and infinity included).
    """
    result = ResultFile(schema="penumo/job-result/1", program=program, values=values)
    text = json.dumps(result.model_dump(by_alias=True), indent=2, allow_nan=False)
    host, names = hosts()
    write_atomic(directory / host_result_name(host, first=host == names[0]), text.encode("utf-8"))


def run_program(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Run ``main``; on failure leave the reason in ``output/failure`` and exit with 1.

    SageMaker shows the first 1,024 characters of that file as the job's FailureReason.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    try:
        main(argv)
    except Exception as error:
        reason = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
        write_atomic(opt_ml() / "output" / "failure", reason.encode("utf-8"))
        if not isinstance(error, JobError):
            traceback.print_exc()
        print(f"ERROR {reason}", flush=True)
        sys.exit(1)


def _created(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
