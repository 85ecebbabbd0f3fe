"""Pictures and tables for the asset pages: what a stage made, and what it refused and why."""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from dagster import MarkdownMetadataValue, MetadataValue, TableColumn, TableMetadataValue, TableRecord, TableSchema

from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore

if TYPE_CHECKING:
    import numpy as np

TILE = 144
MAX_TILES = 6
MAX_RECORDS = 100
DECIMALS = 4


def stage_preview(store: ObjectStore, rows: Sequence[ManifestRow], stage: str) -> MarkdownMetadataValue:
    """Up to six accepted images of a stage, side by side; the NPZ stage shows R, G, B and Mask below each other."""
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
    return _picture(np.hstack(tiles), stage) if tiles else MetadataValue.md("no images")


def pair_sheet(store: ObjectStore, pairs: Sequence[tuple[str, str]]) -> MarkdownMetadataValue:
    """The first pairs of tensors that look alike, side by side, one pair below the other."""
    import cv2
    import numpy as np

    from penumo_assets.imaging.pack import load_npz

    def tile(key: str) -> np.ndarray:
        try:
            return _square(np.ascontiguousarray(load_npz(store.read(key))[..., :3]))
        except ObjectMissing:
            return _blank(TILE)  # the tensor is in a shard, but no longer a file of its own

    sheet = np.vstack([np.hstack([tile(key) for key in pair]) for pair in pairs[:MAX_TILES]])
    return _picture(cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), "pairs")


def contact_sheet(store: ObjectStore, keys: Sequence[str]) -> MarkdownMetadataValue:
    """Stored pictures of one size below each other, made smaller: what the overlays of `predictions` look like."""
    import cv2
    import numpy as np

    pictures = [cv2.imdecode(np.frombuffer(store.read(key), np.uint8), cv2.IMREAD_COLOR) for key in keys]
    sheet = np.vstack([picture for picture in pictures if picture is not None])
    small = cv2.resize(sheet, None, fx=TILE / 224, fy=TILE / 224, interpolation=cv2.INTER_AREA)
    return _picture(small, "lung contour and Grad-CAM")


def _picture(pixels: "np.ndarray", name: str) -> MarkdownMetadataValue:
    import cv2

    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])
    text = base64.b64encode(data.tobytes()).decode()
    return MetadataValue.md(f"![{name}](data:image/jpeg;base64,{text})")


def table(records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> TableMetadataValue:
    """At most `MAX_RECORDS` records; what is not known stands as ``unknown``. An empty table keeps its columns."""
    shown = [
        TableRecord({name: "unknown" if record.get(name) is None else rounded(record[name]) for name in columns})
        for record in islice(records, MAX_RECORDS)
    ]
    kinds = {name: _kind({type(record.data[name]) for record in shown}) for name in columns}
    return MetadataValue.table(shown, TableSchema(columns=[TableColumn(name, kinds[name]) for name in columns]))


def rounded(value: Any) -> Any:
    """A number as a page shows it: Dagster prints all sixteen digits of a float. Anything else as it is."""
    return round(value, DECIMALS) if isinstance(value, float) else value


def listed(values: Iterable[str]) -> str:
    """A list as words: Dagster prints it as JSON, over as many lines."""
    return ", ".join(values) or "none"


def _kind(types: set[type]) -> str:
    kinds = {bool: "bool", int: "int", float: "float"}
    return kinds.get(next(iter(types)), "string") if len(types) == 1 else "string"


def reject_table(rows: Sequence[ManifestRow]) -> TableMetadataValue:
    """Rejected files and why: two columns, because Dagster's pages cut a wider table off."""
    rejected = ({"file": row.source, "why": f"{row.code}: {row.reason}"} for row in rows if row.status == "rejected")
    return table(rejected, ("file", "why"))


def reason_table(rows: Sequence[ManifestRow]) -> TableMetadataValue:
    """How many images were rejected at which stage for which reason, most frequent first."""
    counts = Counter((row.stage, row.code) for row in rows if row.status == "rejected")
    records = ({"stage": stage, "reason": code, "files": n} for (stage, code), n in counts.most_common())
    return table(records, ("stage", "reason", "files"))


def reject_counts(rows: Sequence[ManifestRow]) -> dict[str, int]:
    """How many images were rejected for each code, most frequent first."""
    return dict(Counter(row.code or "" for row in rows if row.status == "rejected").most_common())


def _read(store: ObjectStore, row: ManifestRow, stage: str) -> "np.ndarray":
    import cv2

    from penumo_assets.imaging.decode import decode_png
    from penumo_assets.imaging.formats.decoded import eight_bit

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
