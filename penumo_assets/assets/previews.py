"""Pictures and tables for the asset pages: what a stage made, and what it refused and why."""

import base64
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dagster import MarkdownMetadataValue, MetadataValue, TableColumn, TableMetadataValue, TableRecord, TableSchema

from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.resources.storage import ObjectMissing, ObjectStore

if TYPE_CHECKING:
    import numpy as np

TILE = 144
MAX_TILES = 6
MAX_REJECTS = 100


def stage_preview(store: ObjectStore, rows: Sequence[ManifestRow], stage: str) -> MarkdownMetadataValue:
    """Up to six accepted images of a stage, side by side; the NPZ stage shows R, G, B and Mask below each other."""
    import cv2  # the pictures need it, loading the definitions does not
    import numpy as np

    draw = {"raw": _raw_tile, "masks": _mask_tile, "preprocessed": _stored_tile, "npz": _npz_tile}[stage]
    tiles: list[np.ndarray] = []
    for row in (row for row in rows if stage in row.stages):
        try:
            tiles.append(draw(store, row))
        except ObjectMissing:
            continue  # the check npz_contract reports lost objects; a picture must not fail the cohort
        if len(tiles) == MAX_TILES:
            break
    if not tiles:
        return MetadataValue.md("no images")
    sheet = np.hstack(tiles)
    _, data = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 80])
    text = base64.b64encode(data.tobytes()).decode()
    return MetadataValue.md(f"![{stage}](data:image/jpeg;base64,{text})")


def reject_table(rows: Sequence[ManifestRow]) -> TableMetadataValue:
    """Every rejected file with its reason."""
    columns = ("file", "stage", "code", "reason")
    schema = TableSchema(columns=[TableColumn(name, "string") for name in columns])
    rejected = [row for row in rows if row.status == "rejected"][:MAX_REJECTS]
    records = [
        TableRecord({"file": row.source, "stage": row.stage or "", "code": row.code or "", "reason": row.reason or ""})
        for row in rejected
    ]
    return MetadataValue.table(records, schema)


def reject_counts(rows: Sequence[ManifestRow]) -> dict[str, int]:
    """How many images were rejected for each code, most frequent first."""
    return dict(Counter(row.code or "" for row in rows if row.status == "rejected").most_common())


def _read(store: ObjectStore, row: ManifestRow, stage: str) -> "np.ndarray":
    import cv2

    from penumo_assets.imaging.decode import decode_png
    from penumo_assets.imaging.decoded import eight_bit

    pixels = eight_bit(decode_png(store.read(row.stages[stage].key)))
    return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)


def _square(pixels: "np.ndarray", size: int = TILE) -> "np.ndarray":
    from penumo_assets.imaging.letterbox import Letterbox

    return Letterbox.fit(pixels.shape[0], pixels.shape[1], size).apply(pixels)


def _raw_tile(store: ObjectStore, row: ManifestRow) -> "np.ndarray":
    return _square(_read(store, row, "raw"))


def _stored_tile(store: ObjectStore, row: ManifestRow) -> "np.ndarray":
    return _square(_read(store, row, "preprocessed"))


def _mask_tile(store: ObjectStore, row: ManifestRow) -> "np.ndarray":
    import cv2

    tile = _square(_read(store, row, "raw"), 2 * TILE) if "raw" in row.stages else _blank(2 * TILE)
    mask = _square(_read(store, row, "masks"), 2 * TILE)[..., 0]
    contours, _ = cv2.findContours((mask > 127).astype("uint8"), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, contours, -1, (60, 200, 255), 2)
    return cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_AREA)


def _npz_tile(store: ObjectStore, row: ManifestRow) -> "np.ndarray":
    import cv2
    import numpy as np

    from penumo_assets.imaging.pack import load_npz

    tensor = load_npz(store.read(row.stages["npz"].key))
    planes = [cv2.cvtColor(np.ascontiguousarray(tensor[..., channel]), cv2.COLOR_GRAY2RGB) for channel in range(4)]
    return np.vstack([_square(plane, TILE) for plane in planes])


def _blank(size: int) -> "np.ndarray":
    import numpy as np

    return np.zeros((size, size, 3), np.uint8)
