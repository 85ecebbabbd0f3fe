"""What an endpoint needs, in one model.tar.gz: weights, decision rule, settings of the imaging steps, and the code.

The layout is that of SageMaker's PyTorch inference container (``code/inference.py`` and ``code/requirements.txt``
beside the model). Batch predictions and `penumo predict` use the same archive, so there is one thing to trust.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import penumo_assets
from penumo_assets.models.archive import METADATA_NAME, WEIGHTS_NAME, bare_name, open_archive
from penumo_assets.resources.compute.bundle import source_bundle
from penumo_assets.resources.compute.sagemaker.start import requirements_of

ARCHIVE_NAME = "model.tar.gz"
_INFERENCE = """# What SageMaker's inference container looks for; the functions are penumo_assets' own.
from penumo_assets.jobs.infer.container import input_fn, model_fn, output_fn, predict_fn

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]
"""


def write_serving_archive(
    archive: Path, target: Path, rule: bytes, prepare: bytes, origin: Mapping[str, Any], segmenter: Path | None = None
) -> None:
    """Write ``target`` from a trained model's ``archive``.

    Parameters
    ----------
    archive : model.tar.gz of a training job, with metadata.json at its top.
    rule : content of ``decision_rule.json`` (`jobs/infer/predictor.py`).
    prepare : content of ``prepare_config.yaml``: how the training images were prepared.
    origin : content of ``serving.json``: version, training data, whether these are phantoms.
    segmenter : weights of the lung segmenter, where they are not the bundled ones.

    Raises
    ------
    ModelError
        If ``archive`` is not what `open_archive` takes.
    """
    (requirements,) = requirements_of("infer", Path(penumo_assets.__file__).parent)
    documents = {
        "decision_rule.json": rule,
        "prepare_config.yaml": prepare,
        "serving.json": json.dumps(dict(origin), indent=2, sort_keys=True).encode(),
        "code/inference.py": _INFERENCE.encode(),
        # pip runs nobody's build script at the start of an endpoint.
        "code/requirements.txt": b"--only-binary=:all:\n" + requirements.read_bytes(),
    }
    with tarfile.open(target, "w:gz", compresslevel=0) as out:  # weights: 3 s of compression would save 8 %
        with open_archive(archive) as (source, members):
            # Of what a job has left, only what is data: a container has the folder of the model on its path.
            _copy(source, (member for member in members if bare_name(member) in (METADATA_NAME, WEIGHTS_NAME)), out)
        with tarfile.open(fileobj=io.BytesIO(source_bundle())) as code:
            _copy(code, code, out, "code/")
        for name, data in documents.items():
            _add(out, name, data)
        if segmenter is not None:
            _add(out, "lung_segmenter.safetensors", segmenter.read_bytes())


def _copy(source: tarfile.TarFile, members: Iterable[tarfile.TarInfo], out: tarfile.TarFile, folder: str = "") -> None:
    for member in members:
        data = source.extractfile(member) if member.isreg() else None
        if data is not None:
            member.name = folder + bare_name(member)
            out.addfile(member, data)


def _add(out: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    out.addfile(member, io.BytesIO(data))
