"""Which lung segmenter the masks are made with: the bundled weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from dagster import AssetExecutionContext, MaterializeResult, asset

import penumo_assets
from penumo_assets.assets.catalog import OWNERS, SEGMENTATION, SEGMENTER_RECORD
from penumo_assets.resources.storage import ObjectMissing, ObjectStore, Storage

BUNDLED = Path(penumo_assets.__file__).parent / "models" / "weights" / "lung_unet.safetensors"


@dataclass(frozen=True)
class Segmenter:
    """Weights of a lung segmenter: an object ``prefix/name``, or the bundled file where ``prefix`` is empty."""

    prefix: str
    name: str
    sha256: str


def current_segmenter(store: ObjectStore) -> Segmenter:
    """The recorded segmenter; the bundled one while nothing is recorded."""
    try:
        return Segmenter(**store.read_json(SEGMENTER_RECORD))
    except ObjectMissing:
        return bundled_segmenter()


def bundled_segmenter() -> Segmenter:
    return Segmenter("", BUNDLED.name, hashlib.sha256(BUNDLED.read_bytes()).hexdigest())


@asset(
    group_name=SEGMENTATION,
    owners=OWNERS,
    kinds={"pytorch"},
    description="Weights of the lung segmenter: the ones bundled with the package.",
)
def lung_segmenter(context: AssetExecutionContext, storage: Storage) -> MaterializeResult:
    """Record which weights segment the lungs."""
    segmenter = bundled_segmenter()
    storage.store.write_json(SEGMENTER_RECORD, vars(segmenter))
    return MaterializeResult(metadata={"weights": segmenter.name, "sha256": segmenter.sha256})
