"""What the assets' pages show: pictures, tables, links, and what the columns of tabular outputs mean."""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from dagster import MarkdownMetadataValue, MetadataValue, TableColumn, TableMetadataValue, TableRecord, TableSchema

from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets.resources.tracking import Tracking

if TYPE_CHECKING:
    import numpy as np

TILE = 192
LINE = 15
_WHAT = {
    "raw": "Films as they are kept: decoded, without identity.",
    "masks": "Films with the outline of the lung mask.",
    "preprocessed": "Films cropped to the lungs and enhanced.",
    "npz": "Tensors, from top to bottom: R, G, B, Mask.",
}
MAX_TILES = 6
MAX_RECORDS = 100
DECIMALS = 4
_BACKTICKS = re.compile(r"`+")

TRAINING_INDEX = TableSchema(
    columns=[
        TableColumn("shard", "int", "Number of the shard file that holds the image."),
        TableColumn("row", "int", "Position of the image in its shard."),
        TableColumn("image_id", "string", "The image's id, unique in its cohort."),
        TableColumn("patient_id", "string", "Pseudonym of the patient; decides the split."),
        TableColumn("cohort", "string", "The cohort the image landed with."),
        TableColumn("label", "string", "Class by labels.csv."),
        TableColumn("target", "int", "Number of the class: its position in dataset.json."),
        TableColumn("view", "string", "Projection (PA, AP), where known."),
        TableColumn("sex", "string", "Sex by labels.csv or the DICOM header, where known."),
        TableColumn("age", "float", "Age in years, capped at 90, where known."),
        TableColumn("source_width", "float", "Width in pixels of the image as it landed."),
        TableColumn("source_height", "float", "Height in pixels of the image as it landed."),
        TableColumn("source_bytes", "float", "Size in bytes of the file as it landed."),
        TableColumn("mean_intensity", "float", "Mean of the decoded image, 0 (black) to 1 (white)."),
        TableColumn("sha256", "string", "SHA-256 of the tensor's file."),
        TableColumn("file", "string", "The tensor, below npz/."),
        TableColumn("pixel_sha256", "string", "SHA-256 of the tensor's values."),
        TableColumn("perceptual_hash", "int", "64-bit pHash: near-duplicates differ in few bits."),
        TableColumn("bar_height", "float", "Black bars above and below, as a share of the height."),
        TableColumn("bar_width", "float", "Black bars at the sides, as a share of the width."),
        TableColumn("outline_top", "float", "Where the lungs' outline begins, as a share of the height."),
        TableColumn("outline_bottom", "float", "Where it ends."),
        TableColumn("outline_left", "float", "Where it begins, as a share of the width."),
        TableColumn("outline_right", "float", "Where it ends."),
        TableColumn("outline_height", "float", "The outline's share of the height."),
        TableColumn("outline_width", "float", "The outline's share of the width."),
        TableColumn("border_mean", "float", "Mean of the outermost 8 pixels, the lungs left out, 0 to 255."),
        TableColumn("border_sd", "float", "Their standard deviation."),
        TableColumn("border_black", "float", "The share of them below 16."),
        TableColumn("film_border_mean", "float", "The border's mean before any filter, where it was measured."),
        TableColumn("film_border_sd", "float", "Its standard deviation then."),
        TableColumn("film_border_black", "float", "Its share below 16 then."),
        TableColumn("boxes", "string", "Readers' boxes: [[left, top, right, bottom], …], shares of the side."),
    ]
)


def prediction_columns(classes: Iterable[str]) -> TableSchema:
    """Columns of predictions.parquet for a model of these classes."""
    names = tuple(classes)
    return TableSchema(
        columns=[
            TableColumn("file", "string", "The tensor, below npz/."),
            TableColumn("image_id", "string", "The image's id, unique in its cohort."),
            TableColumn("patient_id", "string", "Pseudonym of the patient."),
            TableColumn("label", "string", "Class by labels.csv, where it is known."),
            *(TableColumn(f"probability_{name}", "float", f"Softmax probability of {name}.") for name in names),
            *(
                TableColumn(f"calibrated_probability_{name}", "float", f"Probability of {name}, calibrated.")
                for name in names
            ),
            TableColumn("decision", "string", "Class at the threshold; with several classes the most probable one."),
            TableColumn("threshold", "float", "Cut on the positive class's probability, chosen on validation."),
            TableColumn("calibrated_threshold", "float", "The same cut on its calibrated probability."),
            TableColumn("model_version", "string", "Version in MLflow's registry."),
            TableColumn("architecture", "string", "Network of that version."),
            TableColumn("quality_flags", "string", "What is unusual about the image, joined by semicolons."),
        ]
    )


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


def text_block(text: str) -> MarkdownMetadataValue:
    """``text`` as a block of code; its fence is longer than any row of backticks in it, so nothing ends it early."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return MetadataValue.md(f"{fence}\n{text}\n{fence}")


def link(text: str, address: str) -> MarkdownMetadataValue:
    """A link, or just the text where ``address`` is no http or https address that can stand in a link."""
    safe = address.startswith(("http://", "https://")) and not re.search(r"[\s()<>\\]", address)
    return MetadataValue.md(f"[{escaped(text)}](<{address}>)" if safe else escaped(text))


def mlflow_run(tracking: Tracking, run_id: str | None) -> MarkdownMetadataValue:
    """A job's MLflow run, with a link where MLflow's UI is known."""
    return link(run_id or "none", (tracking.run_address(run_id) if run_id else None) or "")


def escaped(text: str) -> str:
    """Everything that is neither a letter, a digit nor a space with a backslash in front; on one line."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def stage_preview(store: ObjectStore, rows: Sequence[ManifestRow], stage: str) -> MarkdownMetadataValue:
    """Up to six accepted images of a stage, side by side, each under its image id and its label.

    The NPZ stage shows R, G, B and Mask below each other.
    """
    import numpy as np

    draw = {"raw": _raw_tile, "masks": _mask_tile, "preprocessed": _stored_tile, "npz": _npz_tile}[stage]
    tiles: list[np.ndarray] = []
    for row in (row for row in rows if stage in row.stages):
        try:
            tiles.append(_captioned(draw(store, row), (row.image_id, row.label or "no label")))
        except ObjectMissing:
            continue  # the check npz_contract reports lost objects; a picture must not fail the cohort
        if len(tiles) == MAX_TILES:
            break
    return _picture(np.hstack(tiles), stage, _WHAT[stage]) if tiles else MetadataValue.md("no images")


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
    what = "Each row: two tensors of two patients that look alike, in the order of the table of offenders."
    return _picture(cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), "pairs", what)


def contact_sheet(store: ObjectStore, pictures: Mapping[str, Sequence[str]]) -> MarkdownMetadataValue:
    """The overlays of `predictions`, by their keys, in rows of two: each under what is said of it."""
    import cv2
    import numpy as np

    tiles = []
    for key, lines in pictures.items():
        picture = cv2.imdecode(np.frombuffer(store.read(key), np.uint8), cv2.IMREAD_COLOR)
        if picture is not None:
            small = cv2.resize(picture, (2 * TILE, TILE), interpolation=cv2.INTER_AREA)
            tiles.append(_captioned(small, lines))
    tiles += [np.zeros_like(tiles[0])] * (len(tiles) % 2)
    sheet = np.vstack([np.hstack(tiles[at : at + 2]) for at in range(0, len(tiles), 2)])
    what = "Left the outline of the lungs, right what spoke for the positive class (Grad-CAM), red for most."
    return _picture(sheet, "lung contour and Grad-CAM", what)


def overlay_lines(row: Mapping[str, str], positive: str) -> tuple[str, str]:
    """What stands above an overlay: which film; its label, the decision and the probability, from predictions.csv."""
    probability = float(row[f"probability_{positive}"])
    return row["image_id"], f"label {row['label'] or 'none'}, called {row['decision'] or 'nothing'} ({probability:.2f})"


def _captioned(tile: "np.ndarray", lines: Sequence[str]) -> "np.ndarray":
    """A picture under lines of small text; what OpenCV has no letter for stands as ``?``."""
    import cv2
    import numpy as np

    strip = np.full((LINE * len(lines) + 6, tile.shape[1], 3), 32, np.uint8)
    for number, line in enumerate(lines):
        text = line.encode("ascii", "replace").decode()[: tile.shape[1] // 7]
        at = (4, LINE * (number + 1))
        cv2.putText(strip, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (235, 235, 235), 1, cv2.LINE_AA)
    return np.vstack([strip, tile])


def _picture(pixels: "np.ndarray", name: str, caption: str) -> MarkdownMetadataValue:
    import cv2

    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])
    text = base64.b64encode(data.tobytes()).decode()
    return MetadataValue.md(f"![{name}](data:image/jpeg;base64,{text})\n\n{caption}")


def _read(store: ObjectStore, row: ManifestRow, stage: str) -> "np.ndarray":
    import cv2

    from penumo_assets.imaging.decode import read_back
    from penumo_assets.imaging.formats.decoded import eight_bit

    pixels = eight_bit(read_back(store.read(row.stages[stage].key)))
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
