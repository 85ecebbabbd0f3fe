"""Segment a folder of films on one machine, without the asset graph: what `penumo segment` runs."""

import csv
import io
import time
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from penumo_assets.cohort.names import is_hidden
from penumo_assets.configs.prepare import DecodeConfig, SegmentConfig
from penumo_assets.imaging.decode import decode_image, encode_png
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.decoded import eight_bit
from penumo_assets.imaging.formats.files import not_a_file, read_plain_file
from penumo_assets.imaging.letterbox import Letterbox, resize
from penumo_assets.imaging.lung_mask import find_lungs
from penumo_assets.imaging.segment import LungSegmenter
from penumo_assets.jobs.contract import write_atomic
from penumo_assets.jobs.csv_cells import plain_row
from penumo_assets.resources.storage.object_store import UNSAFE_NAME, is_key, printable

BATCH = 8
OK = "ok"
_CONTOUR = (60, 200, 255)  # BGR, visible on gray


@dataclass
class Line:
    """A line of segment.csv: areas are shares of the image; ``status`` is ok or the reason's code."""

    file: str
    status: str
    area_left: float | str = ""
    area_right: float | str = ""
    seconds: float | str = ""


def segment_folder(folder: Path, out: Path, *, progress: bool = False) -> dict[str, int]:
    """Write ``masks/{name}.png`` (original height and width, {0, 255}), ``overlays/{name}.jpg`` and ``segment.csv``.

    ``name`` is the file's path below ``folder`` with its extension, so no two files share one. A file that cannot be
    used gets a line with the reason's code; ``unwritable`` is a film whose mask or overlay could not be written: its
    name is the folder of another's, say, or it has more pixels on a side than a JPEG can. Returns how many files ended
    with which status.
    """
    files = [path for path in sorted(folder.rglob("*")) if not (path.is_dir() and not path.is_symlink())]
    files = [path for path in files if not is_hidden(path.relative_to(folder).as_posix())]
    segmenter = LungSegmenter()
    lines: list[Line] = []
    with tqdm(total=len(files), desc="segmenting", unit="film", disable=None if progress else True) as bar:
        remaining = iter(files)
        while batch := list(islice(remaining, BATCH)):
            lines += _segment_batch(segmenter, batch, folder, out)
            bar.update(len(batch))
    write_atomic(out / "segment.csv", _table(lines))
    return dict(Counter(line.status for line in lines).most_common())


def _segment_batch(segmenter: LungSegmenter, files: list[Path], folder: Path, out: Path) -> list[Line]:
    started = time.perf_counter()
    config, decode = SegmentConfig.defaults(), DecodeConfig.defaults()
    lines: list[Line] = []
    films: list[tuple[Line, np.ndarray, Letterbox]] = []
    for path in files:
        name = path.relative_to(folder).as_posix()
        line = Line(printable(name), OK)
        lines.append(line)
        try:
            if not is_key(f"{name}.png"):
                raise ImageRejected("unsafe_name", UNSAFE_NAME)
            if path.is_symlink():
                raise not_a_file()
            decoded = decode_image(read_plain_file(path, decode.max_file_bytes), decode)
            films.append((line, eight_bit(decoded.pixels), Letterbox.fit(*decoded.size, 512)))
        except ImageRejected as rejection:
            line.status = rejection.code
        except OSError:
            line.status = "unreadable"
    if films:
        looks = segmenter.look(np.stack([letterbox.apply(gray) for _, gray, letterbox in films]))
        for number, (line, gray, letterbox) in enumerate(films):
            lungs = find_lungs(looks.film(slice(number, number + 1)), letterbox.content, config)
            line.status = "+".join((*lungs.problems, *lungs.flags)) or OK
            line.area_left = round(lungs.assessment.left_fraction, 4)
            line.area_right = round(lungs.assessment.right_fraction, 4)
            try:
                _write_pictures(out, line.file, gray, letterbox.invert_mask(lungs.drawn))
            except OSError:
                line.status = "unwritable"
    for line, _, _ in films:
        line.seconds = round((time.perf_counter() - started) / len(files), 4)
    return lines


def _write_pictures(out: Path, name: str, gray: np.ndarray, mask: np.ndarray) -> None:
    """Raises OSError where one of the two cannot be written."""
    write_atomic(out / "masks" / f"{name}.png", encode_png(mask))
    overlay = cv2.cvtColor(resize(gray, *mask.shape), cv2.COLOR_GRAY2BGR)  # a huge film was decoded reduced
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(overlay, contours, -1, _CONTOUR, max(1, round(max(gray.shape) / 400)))
    encoded, data = cv2.imencode(".jpg", overlay)
    if not encoded:
        raise OSError(f"OpenCV writes no JPEG of {overlay.shape[1]} x {overlay.shape[0]} pixels")
    write_atomic(out / "overlays" / f"{name}.jpg", data.tobytes())


def _table(lines: list[Line]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(Line.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain_row(asdict(line)) for line in lines)
    return text.getvalue().encode("utf-8")
