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
from penumo_assets.imaging.segment_pspnet import PSPNetSegmenter
from penumo_assets.jobs.quality import quality_flags

LETTERBOX_SIZE = 512


@dataclass(frozen=True)
class PreparedImage:
    """A tensor (224, 224, 4) uint8 and the quality flags of the image it was made from.

    ``flags`` are `jobs/quality.py`'s short codes for a person to look at.
    """

    tensor: np.ndarray
    format: str
    view: str | None
    flags: tuple[str, ...]


def prepare_image(data: bytes, config: PrepareConfig, segmenter: LungSegmenter | PSPNetSegmenter) -> PreparedImage:
    """Decode, letterbox, segment, enhance and pack one image, as jobs/prepare does for a cohort.

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
    letterbox = Letterbox.fit(*decoded.size, LETTERBOX_SIZE)
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
    flags = quality_flags(decoded.notes, decoded.tags.burned_in, problems)
    return PreparedImage(pack_tensor(result.image, result.mask), decoded.format, decoded.tags.view, flags)
