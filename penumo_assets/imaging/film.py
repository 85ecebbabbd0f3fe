"""One film, from its file's bytes to the tensor that a classifier takes: step by step, and all steps in a row.

jobs/prepare takes the steps with many films at a time and stores what each of them makes; the endpoint and
`penumo predict` take `film_to_tensor`. Importing this loads torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.decode import DecodedImage, decode_image
from penumo_assets.imaging.enhance import enhance
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.lung_mask import find_lungs
from penumo_assets.imaging.pack import pack_tensor
from penumo_assets.imaging.segment import Segmenter, segmentable
from penumo_assets.imaging.segment_looks import FilmLook


@dataclass(frozen=True)
class Film:
    """``tensor`` is (224, 224, 4) uint8, as `pack_tensor` makes it; the other two are those of `Lungs`."""

    decoded: DecodedImage
    tensor: np.ndarray
    mask_problems: tuple[str, ...]
    look_flags: tuple[str, ...]


def look_at(squares: Sequence[np.ndarray], segmenter: Segmenter, on_gray: bool) -> list[FilmLook]:
    """What the segmenter sees on each letterboxed film; all go through the network at once.

    A film is gray or RGB, uint8 or uint16; of RGB the luminance is looked at, or each channel, and averaged.
    """
    planes = [segmentable(square, on_gray) for square in squares]
    looks = segmenter.look(np.concatenate(planes))
    ends = np.cumsum([len(plane) for plane in planes])
    return [looks.film(slice(end - len(plane), end)) for plane, end in zip(planes, ends, strict=True)]


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
    (look,) = look_at([square], segmenter, config.segment.seg_on_gray)
    lungs = find_lungs(look, letterbox.content, config.segment)
    lungs.refuse_implausible(config.segment)
    enhanced = enhance(square, lungs.mask, letterbox.content, config.enhance)
    return Film(decoded, pack_tensor(enhanced.image, enhanced.mask), lungs.problems, lungs.flags)
