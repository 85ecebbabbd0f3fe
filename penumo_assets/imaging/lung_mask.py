"""From a segmenter's probabilities to a lung mask, and whether that mask, and the film, can be believed.

`clean_mask` makes a mask of probabilities, `assess_mask` a verdict of a mask, and `find_lungs` does both as
the settings ask. Everything is in 512x512 letterbox coordinates (`penumo_assets.imaging.letterbox`).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from penumo_assets.configs.prepare import OnBadMask, PlausibilityConfig, SegmentConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.segment_looks import FilmLook

MIN_COMPONENT = 0.1  # a second component below this share of the first is a fragment, not the other lung
LOOKS_DISAGREE = "looks_disagree"


@dataclass(frozen=True)
class Lungs:
    """The lungs that a segmenter found on one film.

    Attributes
    ----------
    drawn : ndarray
        (512, 512) uint8 {0, 255}: the mask as it was drawn.
    mask : ndarray
        The same, or all of the content where the drawn one is not to be believed and the settings ask for that.
    assessment : MaskAssessment
    problems : tuple of str
        The assessment's, and ``looks_disagree``.
    flags : tuple of str
        ``looks_inverted``, ``looks_rotated``.
    """

    drawn: np.ndarray
    mask: np.ndarray
    assessment: "MaskAssessment"
    problems: tuple[str, ...]
    flags: tuple[str, ...]

    def refuse_implausible(self, config: SegmentConfig) -> None:
        """Refuse the film for its problems, if the settings ask for that.

        Raises
        ------
        ImageRejected
            ``implausible_mask``, or ``not_a_chest_film`` where nothing but the looks speaks against it.
        """
        if not self.problems or config.on_bad_mask is not OnBadMask.reject:
            return
        if self.problems != (LOOKS_DISAGREE,):
            raise ImageRejected("implausible_mask", f"the lung mask is not plausible: {', '.join(self.problems)}")
        turned = ", or one that is turned" if "looks_rotated" in self.flags else ""
        raise ImageRejected(
            "not_a_chest_film",
            "the segmenter sees other lungs at each look, as it does on what is no frontal chest film" + turned + ".",
        )


def find_lungs(look: FilmLook, content: tuple[slice, slice], config: SegmentConfig) -> Lungs:
    """The lungs of one film, from what the segmenter saw on it.

    Parameters
    ----------
    look : FilmLook
    content : tuple of slice
        Rows and columns that hold the image (`Letterbox.content`).
    config : SegmentConfig
    """
    drawn = mask = clean_mask(look.probability, content, config.threshold)
    assessment = assess_mask(drawn, content, config.plausibility)
    problems = assessment.problems
    if look.agreement is not None and look.agreement < config.plausibility.min_look_agreement:
        problems = (*problems, LOOKS_DISAGREE)
    if problems:
        mask = np.zeros_like(drawn)
        mask[content] = 255
    return Lungs(drawn, mask, assessment, problems, look.flags)


def clean_mask(probability: np.ndarray, content: tuple[slice, slice], threshold: float = 0.5) -> np.ndarray:
    """The two largest components above ``threshold``, holes filled, nothing outside the content.

    Parameters
    ----------
    probability : ndarray
        (512, 512) float, as `LungSegmenter.predict` returns for one image.
    content : tuple of slice
        Rows and columns that hold the image (`Letterbox.content`).

    Returns
    -------
    ndarray
        (512, 512) uint8 {0, 255}.
    """
    mask = np.zeros(probability.shape, np.uint8)
    binary = (probability[content] > threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    largest = np.argsort(stats[1:, cv2.CC_STAT_AREA])[::-1][:2] + 1
    lungs = np.isin(labels, largest).astype(np.uint8) if count > 1 else binary
    mask[content] = fill_holes(lungs) * 255
    return mask


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what the foreground encloses; (H, W) uint8 {0, 1} in and out."""
    framed = np.pad(mask, 1)
    outside = framed.copy()
    cv2.floodFill(outside, None, (0, 0), 1)
    return (framed | (1 - outside))[1:-1, 1:-1]


@dataclass(frozen=True)
class MaskAssessment:
    """How large the lungs are and what speaks against the mask.

    Fractions are of the letterbox's content area. Left and right are the viewer's. ``problems`` is
    empty for a plausible mask, else some of ``no_lung``, ``too_small``, ``too_large``, ``one_sided``
    and ``off_centre``.
    """

    area_fraction: float
    left_fraction: float
    right_fraction: float
    problems: tuple[str, ...]


def assess_mask(mask: np.ndarray, content: tuple[slice, slice], limits: PlausibilityConfig) -> MaskAssessment:
    """Measure a mask from `clean_mask` and hold it against ``limits``.

    Two components that lie side by side are the two lungs, wherever they are; otherwise (a joined
    mask, or one lung) the content's middle column divides left from right.
    """
    lungs = mask[content] > 0
    height, width = lungs.shape
    area = float(lungs.mean())
    if area == 0:
        return MaskAssessment(0.0, 0.0, 0.0, ("no_lung",))
    left, right = (part / lungs.size for part in _sides(lungs))
    rows, columns = np.nonzero(lungs)
    offset = max(abs((rows.mean() + 0.5) / height - 0.5), abs((columns.mean() + 0.5) / width - 0.5))
    found = {
        "too_small": area < limits.min_area_fraction,
        "too_large": area > limits.max_area_fraction,
        "one_sided": min(left, right) < limits.min_side_balance * max(left, right),
        "off_centre": offset > limits.max_centroid_offset,
    }
    return MaskAssessment(area, left, right, tuple(name for name, wrong in found.items() if wrong))


def _sides(lungs: np.ndarray) -> tuple[int, int]:
    """Pixels of the left and the right lung of a boolean (H, W) mask."""
    _, _, stats, centroids = cv2.connectedComponentsWithStats(lungs.astype(np.uint8), connectivity=8)
    order = np.argsort(centroids[1:, 0]) + 1
    areas = stats[order, cv2.CC_STAT_AREA]
    apart = len(order) == 2 and centroids[order[1], 0] - centroids[order[0], 0] > 0.15 * lungs.shape[1]
    if apart and areas.min() >= MIN_COMPONENT * areas.max():
        return int(areas[0]), int(areas[1])
    middle = lungs.shape[1] // 2
    return int(lungs[:, :middle].sum()), int(lungs[:, middle:].sum())
