"""What `lung_unet` does before and behind its network, of one film at a time and without torch.

Each function does what the one of its name in `lung_unet` does.
"""

import cv2
import numpy as np

BAR_TOLERANCE = 0.02  # of the image's range: a row or column at the edge that varies less is a bar
STANDARD_LIMIT = 5.0  # standard deviations: a burned-in marker must not dwarf the lungs
LEAST_DEVIATION = 0.5  # gray levels


def standardise(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8 -> (H, W) float32 of zero mean and unit variance over the content; bars around it become 0."""
    tolerance = BAR_TOLERANCE * float(np.ptp(image))
    rows, columns = (_between(np.ptp(image, axis=axis) > tolerance) for axis in (1, 0))
    content = rows[:, None] & columns
    if not content.any():
        return np.zeros(image.shape, np.float32)
    mean, deviation = (float(each[0, 0]) for each in cv2.meanStdDev(image, mask=content.view(np.uint8)))
    centred = np.where(content, image - np.float32(mean), np.float32(0))
    return np.clip(centred / np.float32(max(deviation, LEAST_DEVIATION)), -STANDARD_LIMIT, STANDARD_LIMIT)


def is_negative(standard: np.ndarray, logits: np.ndarray) -> bool:
    """Whether a film is inverted: (H, W) from `standardise`, (H / 2, W / 2) from the network."""
    gray, lung = cv2.resize(standard, logits.shape[::-1], interpolation=cv2.INTER_AREA), logits > 0
    between = _between(lung, axis=1) & ~lung
    return bool(lung.any() and between.any() and gray[lung].mean() > gray[between].mean())


def _between(seen: np.ndarray, axis: int = 0) -> np.ndarray:
    """True from the first to the last True along ``axis``."""
    forward = np.logical_or.accumulate(seen, axis=axis)
    return forward & np.flip(np.logical_or.accumulate(np.flip(seen, axis), axis=axis), axis)
