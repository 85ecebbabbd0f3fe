"""One image on a laptop, from raw file to answer, with the champion or a named version: what `penumo predict` runs.

Nothing but the storage root is needed: no Dagster instance, no MLflow, and no de-identification key, because the
patient's id in a DICOM header is neither kept nor shown.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penumo_assets.cohort.names import in_mask_folder, is_hidden, is_labels
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.files import read_plain_file
from penumo_assets.jobs.contract import write_atomic
from penumo_assets.jobs.infer.handler import DISCLAIMER, BadRequest, Endpoint, answer, input_fn, prepared
from penumo_assets.jobs.infer.pictures import overlay, png_bytes
from penumo_assets.models.errors import ModelError
from penumo_assets.promotion import NoChampion, read_version
from penumo_assets.resources.storage.object_store import ObjectStore, StorageError, printable
from penumo_assets.serving.canary import load_version

MAX_FILE_BYTES = 256 * 2**20
NPZ_SUFFIX = ".npz"


@dataclass(frozen=True)
class FileAnswer:
    """What became of one file: the endpoint's answer, and the ``reason`` why it or its overlay is missing."""

    file: Path
    answer: Mapping[str, Any] | None
    reason: str = ""
    overlay: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """One object for JSON."""
        told = {"disclaimer": DISCLAIMER} if self.answer is None else dict(self.answer)
        told |= {"reason": self.reason} if self.reason else {}
        return {"file": str(self.file), **told, **({"overlay": str(self.overlay)} if self.overlay else {})}


def load_endpoint(store: ObjectStore, wanted: str) -> Endpoint:
    """The serving archive of ``champion``, ``previous`` or a version number, loaded.

    Raises
    ------
    NoChampion
        If there is no such model, or its archive cannot be used.
    """
    record = read_version(store, wanted)
    try:
        return load_version(store, record)
    except (StorageError, ModelError) as error:
        raise NoChampion(
            f"version {record.version} cannot be used: {error}. Materialize champion_model again"
        ) from error


def predict_files(endpoint: Endpoint, files: Iterable[Path], overlays: Path | None = None) -> Iterator[FileAnswer]:
    """Answer each file; one that cannot be used has its reason and stops nobody.

    With ``overlays``, a picture ``{file name}.png`` per answered file is written there: lung contour beside
    Grad-CAM. Files of the same name get numbers, so none overwrites another.
    """
    taken: set[str] = set()
    for file in files:
        try:
            data = _read(file)
            kind = "application/x-npz" if file.suffix.lower() == NPZ_SUFFIX else "application/octet-stream"
            image = prepared(input_fn(data, kind), endpoint)
        except BadRequest as refusal:
            yield FileAnswer(file, None, str(refusal))
            continue
        found = answer(endpoint, image)
        if overlays is None:
            yield FileAnswer(file, found)
            continue
        target = overlays / _free_name(file.name, taken)
        values = np.array([found["probabilities"][name] for name in endpoint.classifier.classes])
        picture = png_bytes(overlay(endpoint.classifier, np.ascontiguousarray(image.tensor), values))
        try:
            write_atomic(target, picture)
        except OSError as error:
            yield FileAnswer(file, found, f"no overlay: {error.strerror}")
        else:
            yield FileAnswer(file, found, overlay=target)


def films(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, and the images below the folders named, by name; not what is hidden, labels.csv or masks/."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path).as_posix()
            if not (file.is_dir() or is_hidden(name) or is_labels(name) or in_mask_folder(name)):
                yield file


def as_text(item: FileAnswer) -> str:
    """The answer for a person; what a terminal would obey, or cannot show, stands as its escape."""
    lines = [f"{item.file}: no answer"] if item.answer is None else _answer_lines(item, item.answer)
    return "\n".join(map(printable, [*lines, *([f"  {item.reason}"] if item.reason else [])]))


def _answer_lines(item: FileAnswer, found: Mapping[str, Any]) -> list[str]:
    lines = [f"{item.file}: {found['decision']}"]
    for name, value in found["probabilities"].items():
        calibrated = found.get("calibrated_probabilities")
        lines.append(
            f"  probability of {name}: {value:.3f}" + (f", calibrated {calibrated[name]:.3f}" if calibrated else "")
        )
    if found["threshold"] is not None:
        positive = list(found["probabilities"])[-1]
        cut = f" ({found['calibrated_threshold']:.3f} calibrated)" if "calibrated_threshold" in found else ""
        lines.append(f"  called {positive} from a probability of {found['threshold']:.3f}{cut}")
    lines.append(f"  model: {found['architecture']}, version {found['model_version'] or 'unknown'}")
    lines.append(f"  image: {found['format']}, view {found['view'] or 'unknown'}")
    lines.append(f"  quality flags: {', '.join(found['quality_flags']) or 'none'}")
    return [*lines, *([f"  overlay: {item.overlay}"] if item.overlay else [])]


def _read(file: Path) -> bytes:
    try:
        return read_plain_file(file, MAX_FILE_BYTES)
    except ImageRejected as rejection:
        raise BadRequest(f"{rejection.code}: {rejection.reason}") from rejection
    except OSError as error:
        raise BadRequest(f"unreadable: {error.strerror}") from error


def _free_name(name: str, taken: set[str]) -> str:
    number = 1
    while (free := f"{name}.png" if number == 1 else f"{name}.{number}.png") in taken:
        number += 1
    taken.add(free)
    return free
