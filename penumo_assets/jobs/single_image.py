"""One raw image -> the tensor a classifier takes, with what was noticed on the way. No cohort, no manifest."""

from dataclasses import dataclass

import numpy as np

from penumo_assets.configs.prepare import OnBadMask, PrepareConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.enhance import enhance
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.pack import pack_tensor
from penumo_assets.imaging.segment import LungSegmenter, assess_mask, clean_mask, segmentable

LETTERBOX_SIZE = 512


@dataclass(frozen=True)
class PreparedImage:
    """A tensor (224, 224, 4) uint8 and the quality flags of the image it was made from.

    ``flags`` are short codes for a person to look at: ``window:percentile``, ``burned_in_annotation``,
    ``implausible_mask:<problem>`` (the whole image was used instead of the lungs).
    """

    tensor: np.ndarray
    format: str
    view: str | None
    flags: tuple[str, ...]


def prepare_image(data: bytes, config: PrepareConfig, segmenter: LungSegmenter) -> PreparedImage:
    """Decode, letterbox, segment, enhance and pack one image, as jobs/prepare.py does for a cohort.

    Parameters
    ----------
    data : a DICOM, PNG or JPEG file.
    config : the settings the classifier's training images were prepared with.

    Raises
    ------
    ImageRejected
        If the image cannot be used; its code and reason say why.
    """
    decoded = decode_image(data, config.decode)
    height, width = decoded.pixels.shape[:2]
    letterbox = Letterbox.fit(height, width, LETTERBOX_SIZE)
    square = letterbox.apply(decoded.pixels)
    probability = segmenter.predict(segmentable(square, config.segment.seg_on_gray)).mean(axis=0)
    mask = clean_mask(probability, letterbox.content, config.segment.threshold)
    problems = assess_mask(mask, letterbox.content, config.segment.plausibility).problems
    if problems and config.segment.on_bad_mask is OnBadMask.reject:
        raise ImageRejected("implausible_mask", f"the lung mask is not plausible: {', '.join(problems)}")
    if problems:
        mask = np.zeros_like(mask)
        mask[letterbox.content] = 255
    result = enhance(square, mask, letterbox.content, config.enhance)
    flags = [*decoded.notes, *(f"implausible_mask:{problem}" for problem in problems)]
    if decoded.tags.burned_in:
        flags.append("burned_in_annotation")
    return PreparedImage(pack_tensor(result.image, result.mask), decoded.format, decoded.tags.view, tuple(flags))
