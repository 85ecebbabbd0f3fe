"""The canary: a film that no patient has, whose answer is known before the endpoint is asked.

What it must answer is what the version's own archive answers on this machine.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penumo_assets.records import VersionRecord
from penumo_assets.resources.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from penumo_assets.jobs.infer.handler import Endpoint

TOLERANCE = 0.01  # in probability: another processor, or a GPU, rounds otherwise
PHANTOMS = 2
NO_FILM = b"This is no film.\n"


@dataclass(frozen=True)
class Canary:
    """A request and the answer that it must get."""

    body: bytes
    content_type: str
    answer: Mapping[str, Any]


def load_version(store: ObjectStore, record: VersionRecord) -> "Endpoint":
    """The serving archive of a version, loaded on this machine.

    Raises
    ------
    StorageError, ModelError
        If it is gone or cannot be used.
    """
    from penumo_assets.jobs.infer.handler import model_fn  # torch
    from penumo_assets.models.archive import extract_model_archive

    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / record.serving.name
        store.download(f"{record.serving.prefix}/{record.serving.name}", archive)
        return model_fn(str(extract_model_archive(archive, Path(scratch) / "model")))


def make_canary(store: ObjectStore, record: VersionRecord) -> Canary:
    """A phantom's DICOM file and what ``record``'s archive answers to it; a tensor where it takes no phantom.

    Raises
    ------
    StorageError, ModelError
        If the archive is gone or cannot be used.
    """
    import numpy as np

    from penumo_assets.imaging.npz_writer import npz_bytes
    from penumo_assets.jobs.infer.handler import BadRequest, input_fn, predict_fn
    from penumo_assets.phantoms import write_cohort

    endpoint = load_version(store, record)
    with tempfile.TemporaryDirectory() as scratch:
        write_cohort(Path(scratch), "canary", patients=PHANTOMS, seed=1, dicom=True, broken=False)
        films = [path.read_bytes() for path in sorted((Path(scratch) / "images").iterdir())]
    for film in films:
        try:
            return Canary(film, "application/dicom", predict_fn(input_fn(film, "application/dicom"), endpoint))
        except BadRequest:
            continue
    shades = np.linspace(0, 255, 224 * 224 * 4).astype(np.uint8).reshape(224, 224, 4)
    shades[..., 3] = np.where(shades[..., 3] > 127, 255, 0)
    tensor = npz_bytes(shades)
    return Canary(tensor, "application/x-npz", predict_fn(input_fn(tensor, "application/x-npz"), endpoint))


def objection(canary: Canary, status: int, text: str) -> str | None:
    """What is wrong with the answer to the canary; None if nothing is."""
    if status != 200:
        return f"the canary film was answered by {status}: {text[:500]}"
    try:
        found = json.loads(text)
        version, probabilities = found["model_version"], found["probabilities"]
        differences = [abs(probabilities[label] - value) for label, value in canary.answer["probabilities"].items()]
    except (ValueError, KeyError, TypeError):
        return f"the canary film's answer is none of ours: {text[:500]}"
    if version != canary.answer["model_version"]:
        return f"version {version} answered the canary film, not {canary.answer['model_version']}"
    if not max(differences) <= TOLERANCE:  # NaN is no agreement either
        return (
            f"the canary film's probabilities differ by {max(differences):.3f} from those that the same archive has "
            "here (if this package was upgraded since its promotion, materialize champion_model again)"
        )
    return None


def laxity(status: int, text: str) -> str | None:
    """What is wrong with the answer to a text file; None if it was refused as the sender's fault."""
    return None if status == 400 else f"a text file was answered by {status}, not refused by 400: {text[:500]}"
