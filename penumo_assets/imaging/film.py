"""One film, from its file's bytes to the tensor that a classifier takes: step by step, and all steps in a row.

jobs/prepare takes the steps with many films at a time and stores what each of them makes; the endpoint and
`penumo predict` take `film_to_tensor`. Importing this loads torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penumo_assets.configs.prepare import OnBadMask, PrepareConfig, SegmentConfig
from penumo_assets.imaging.decode import DecodedImage, decode_image
from penumo_assets.imaging.enhance import enhance
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.pack import pack_tensor
from penumo_assets.imaging.segment import LungSegmenter, MaskAssessment, assess_mask, clean_mask, segmentable
from penumo_assets.imaging.segment_pspnet import PSPNetSegmenter

Segmenter = LungSegmenter | PSPNetSegmenter


@dataclass(frozen=True)
class LungMask:
    """A mask in letterbox coordinates, (512, 512) uint8 {0, 255}.

    ``found`` is the segmenter's; ``used`` is the same, or the whole image where ``assessment`` has problems.
    """

    found: np.ndarray
    used: np.ndarray
    assessment: MaskAssessment


@dataclass(frozen=True)
class Film:
    """``tensor`` is (224, 224, 4) uint8, as `pack_tensor` makes it; ``mask_problems`` as in `MaskAssessment`."""

    decoded: DecodedImage
    tensor: np.ndarray
    mask_problems: tuple[str, ...]


def lung_probabilities(squares: Sequence[np.ndarray], segmenter: Segmenter, on_gray: bool) -> list[np.ndarray]:
    """Probability (512, 512) float32 of lung per pixel, for each letterboxed film; all go through the network at once.

    A film is gray or RGB, uint8 or uint16; of RGB the luminance is looked at, or the mean over its channels' answers.
    """
    planes = [segmentable(square, on_gray) for square in squares]
    flat = segmenter.predict(np.concatenate(planes))
    ends = np.cumsum([len(plane) for plane in planes])
    return [flat[end - len(plane) : end].mean(axis=0) for plane, end in zip(planes, ends, strict=True)]


def lung_mask(probability: np.ndarray, content: tuple[slice, slice], config: SegmentConfig) -> LungMask:
    """The mask of one film from `lung_probabilities`.

    Raises
    ------
    ImageRejected
        If it is not plausible and ``config.on_bad_mask`` is reject.
    """
    found = clean_mask(probability, content, config.threshold)
    assessment = assess_mask(found, content, config.plausibility)
    if not assessment.problems:
        return LungMask(found, found, assessment)
    if config.on_bad_mask is OnBadMask.reject:
        problems = ", ".join(assessment.problems)
        raise ImageRejected("implausible_mask", f"the lung mask is not plausible: {problems}")
    whole = np.zeros_like(found)
    whole[content] = 255
    return LungMask(found, whole, assessment)


def film_to_tensor(data: bytes, config: PrepareConfig, segmenter: Segmenter) -> Film:
    """Decode, letterbox, segment, enhance and pack one DICOM, PNG or JPEG file.

    Raises
    ------
    ImageRejected
        If the film cannot be used; its code and reason say why.
    """
    decoded = decode_image(data, config.decode)
    letterbox = Letterbox.fit(*decoded.size)
    square = letterbox.apply(decoded.pixels)
    (probability,) = lung_probabilities([square], segmenter, config.segment.seg_on_gray)
    lungs = lung_mask(probability, letterbox.content, config.segment)
    enhanced = enhance(square, lungs.used, letterbox.content, config.enhance)
    return Film(decoded, pack_tensor(enhanced.image, enhanced.mask), lungs.assessment.problems)
