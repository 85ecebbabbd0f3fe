"""Boxes that readers drew around a finding on a film, and where they come to lie in its tensor."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy and OpenCV, which reading a table of labels or a manifest does not need
    import numpy as np

    from penumo_assets.imaging.letterbox import Letterbox

Box = tuple[float, float, float, float]


def parse_boxes(text: str) -> tuple[Box, ...]:
    """``x y width height``, several separated by semicolons: pixels of the film as it is shown, from its upper left.

    Raises
    ------
    ValueError
        If a box is no four numbers, or is nowhere on a film.
    """
    boxes = []
    for part in filter(str.strip, text.split(";")):
        x, y, width, height = map(float, part.split())
        if not (isfinite(x + y + width + height) and min(x, y) >= 0 and min(width, height) > 0):
            raise ValueError(f"no box: {part.strip()}")
        boxes.append((x, y, width, height))
    return tuple(boxes)


def lie_within(boxes: Iterable[Box], height: int, width: int) -> bool:
    """Whether no box ends more than a pixel beyond a film of this size."""
    return all(x + across <= width + 1 and y + down <= height + 1 for x, y, across, down in boxes)


def in_tensor(boxes: Iterable[Box], letterbox: "Letterbox", crop_box: Sequence[int]) -> list[Box]:
    """Where boxes of a film lie in its tensor: (left, top, right, bottom) as shares of the tensor's side.

    Parameters
    ----------
    boxes : (x, y, width, height) in pixels of the film.
    letterbox : how the film lies in the square that ``crop_box`` (top, left, bottom, right) was cut from.

    What the crop does not show is cut off; a box of which it shows nothing is left out.
    """
    down, across = letterbox.content_height / letterbox.height, letterbox.content_width / letterbox.width
    top, left, bottom, right = crop_box

    def share(position: float, scale: float, padding: int, start: int, stop: int) -> float:
        return min(max((padding + position * scale - start) / (stop - start), 0.0), 1.0)

    found = []
    for x, y, width, height in boxes:
        ends = [share(at, across, letterbox.left, left, right) for at in (x, x + width)]
        sides = [share(at, down, letterbox.top, top, bottom) for at in (y, y + height)]
        if ends[0] < ends[1] and sides[0] < sides[1]:
            found.append((ends[0], sides[0], ends[1], sides[1]))
    return found


def drawn(boxes: Iterable[Sequence[float]], size: int) -> "np.ndarray":
    """(size, size) uint8: 255 in the boxes that `in_tensor` gives, 0 elsewhere. Each is at least a pixel."""
    import numpy as np

    picture = np.zeros((size, size), np.uint8)
    for box in boxes:
        left, top, right, bottom = (round(share * size) for share in box)
        picture[min(top, size - 1) : max(bottom, top + 1), min(left, size - 1) : max(right, left + 1)] = 255
    return picture
