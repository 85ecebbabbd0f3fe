"""One training on one emulated host, and the same on several that lose their spot instances midway: what differs."""

import logging
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.numpy import load_file

from penumo_assets.models.archive import extract_archive
from penumo_assets.resources.compute.sagemaker.runner import SageMakerJobRunner
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.spec import JobInput, JobResult, JobSpec
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage
from penumo_assets_tests.aws.emulator import Emulator, JobScript
from penumo_assets_tests.jobs.training_samples import packed_set

# bfloat16 would round the parts of a batch differently, mixup draws partners within a host's part, and Adam makes a
# step of full length of a gradient that differs from none by rounding only.
OPTIONS = {
    **{"resolution": 32, "batch-size": 8, "epochs": 2, "warmup-epochs": 0, "optimizer": "sgd", "learning-rate": 0.001},
    **{"mixup": 0, "amp": "fp32", "seed": 3, "threads": 1, "num-workers": 0},
    **{"checkpoint-steps": 3, "early-stopping-patience": 0},
}
logger = logging.getLogger(__name__)


def train_on(emulator: Emulator, hosts: int, **changes: int) -> dict[str, Any]:
    """Train on ``hosts``, several of them on spot instances that are taken once; weights and values of the result.

    ``changes`` are hyperparameters that are not as in ``OPTIONS``.
    """
    environment = emulator.environment("several-hosts")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for name, value in environment.items():
            patch.setenv(name, value)
        storage = Storage(root=environment["PENUMO_ROOT"])
        inputs = _dataset(storage.store, Path(folder), patch)
        settings = SageMakerSettings(
            role_arn=environment["PENUMO_SAGEMAKER_ROLE"],
            image=environment["PENUMO_IMAGE"],
            training_instance_type="ml.m5.xlarge",
            training_instance_count=hosts,
            use_spot=hosts > 1,
            job_name_prefix=f"hosts-{hosts}",
            poll_seconds=0.5,
        )
        if hosts > 1:
            emulator.script(settings.job_name_prefix, JobScript(interrupt_at_checkpoint=True))
        arguments = tuple(text for name, value in (OPTIONS | changes).items() for text in (f"--{name}", str(value)))
        spec = JobSpec("training", "train", "train", "resnet34", arguments, inputs, outputs=("model", "data"))
        context: Any = SimpleNamespace(log=logger, run=SimpleNamespace(run_id="several-hosts"))
        result = SageMakerJobRunner(storage=storage, settings=settings).run(context, spec)
        return {"weights": _weights(storage.store, result, Path(folder)), "job_name": result.job_name, **result.values}


def _dataset(store: ObjectStore, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, JobInput]:
    packed, inputs = packed_set(folder, patch), {}
    patch.delenv("PENUMO_OPT_ML")
    for split in ("train", "validation"):
        files = sorted(path.name for path in (packed / split).iterdir())
        for name in files:
            store.write(f"training_set/{split}/{name}", (packed / split / name).read_bytes())
        inputs[split] = JobInput(f"training_set/{split}", tuple(files))
    return inputs


def _weights(store: ObjectStore, result: JobResult, folder: Path) -> dict[str, Any]:
    store.download(result.key("model", "model.tar.gz"), folder / "model.tar.gz")
    extract_archive(folder / "model.tar.gz", folder / "model")
    return load_file(folder / "model" / "model.safetensors")


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest absolute difference between weights of the same name."""
    assert one.keys() == other.keys()
    return max(float(abs(one[name].astype(float) - other[name]).max()) for name in one)
