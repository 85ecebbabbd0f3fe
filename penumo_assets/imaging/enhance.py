"""From a letterboxed radiograph and its lung mask to the 224x224 picture a classifier sees.

Order: crop to the lungs and/or apply the mask, CLAHE, Gaussian blur, percentile stretch, optional
sharpening, resize. Letterbox padding and the outside of a mask take part in no filter and in no
statistic: padding is cut away before and put back after, and outside a mask each pixel is replaced
by the nearest lung pixel until the filters are done, then set to 0.

By default the lungs' own box is squashed to the square, so that neither black bars nor the place of the
lungs tell what shape the film has and where it ends (benchmarks/preparation_shortcuts.py).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from penumo_assets.configs.prepare import ClaheConfig, Colour, EnhanceConfig, MinMaxConfig, SharpenConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.decoded import eight_bit
from penumo_assets.imaging.histogram import level_counts, percentile_levels
from penumo_assets.imaging.letterbox import resize

Box = tuple[int, int, int, int]
_MOST = (5, 95)  # percentiles between which a picture must vary

# OpenCV counts 16-bit images in 65,536 bins, far more than a tile has pixels: the clip limit then
# means something else, and the result was 28 gray levels away from that of the same picture in
# 8 bits (mean over a radiograph). With 256 bins it is 0.5 levels away. Averaging the results for four
# bin origins a quarter of a bin apart (an averaged shifted histogram, Scott 1985) gives back the
# depth that 256 bins alone would lose.
_CLAHE_BIN_SHIFT = 8
_CLAHE_ORIGINS = (0, 64, 128, 192)


@dataclass(frozen=True)
class Enhanced:
    """An enhanced image with its mask in the same geometry.

    Attributes
    ----------
    image : numpy.ndarray
        (size, size, 3) uint8 RGB; gray is replicated.
    mask : numpy.ndarray
        (size, size) uint8, 0 or 255.
    crop_box : tuple of int
        (top, left, bottom, right) in letterbox coordinates. It reaches beyond the image where the
        margin about the lungs, or a square crop, is larger than what the film shows.
    """

    image: np.ndarray
    mask: np.ndarray
    crop_box: Box


def enhance(
    square: np.ndarray, mask: np.ndarray, content: tuple[slice, slice], config: EnhanceConfig, size: int = 224
) -> Enhanced:
    """Crop, filter and resize one letterboxed image.

    Parameters
    ----------
    square : numpy.ndarray
        (S, S) or (S, S, 3) RGB letterboxed image, uint8 or uint16.
    mask : numpy.ndarray
        (S, S) uint8 lung mask in the same coordinates, 0 is outside.
    content : tuple of slice
        Rows and columns of ``square`` that are image rather than padding.
    config : EnhanceConfig
    size : int
        Side of the result in pixels.

    Raises
    ------
    ValueError
        If shapes or dtypes are not as above, or the mask is empty where the crop or the mask is used.
    ImageRejected
        ``constant_image`` if nine tenths of what is left have one value: a window or an exposure that shows nothing.
    """
    _check(square, mask, content)
    mask = _binary_content(mask, content)
    if (config.crop_to_lungs or config.apply_mask) and not mask.any():
        raise ValueError("the lung mask is empty: there is nothing to crop to")
    box = crop_box(mask, content, config)
    inner = _within(box, content)
    pixels = square[inner[0] : inner[2], inner[1] : inner[3]]
    inside = mask[inner[0] : inner[2], inner[1] : inner[3]] if config.apply_mask else None
    if config.colour is Colour.gray and pixels.ndim == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    _refuse_flat(pixels, inside)
    filtered = _filter(np.ascontiguousarray(pixels), inside, config)
    image = resize(_padded(filtered, inner, box, _beyond(config)), size, size)
    fitted = fit_mask(mask, box, size)
    if config.apply_mask:
        image[fitted == 0] = 0
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return Enhanced(image=image, mask=fitted, crop_box=box)


def unfiltered(
    square: np.ndarray, crop_box: Box, content: tuple[slice, slice], config: EnhanceConfig, size: int = 224
) -> np.ndarray:
    """What `enhance` cut out of ``square``, before any filter: (size, size) uint8 gray."""
    inner = _within(crop_box, content)
    pixels = np.ascontiguousarray(square[inner[0] : inner[2], inner[1] : inner[3]])
    gray = eight_bit(pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    return resize(_padded(gray, inner, crop_box, _beyond(config)), size, size)


def fit_mask(mask: np.ndarray, crop_box: Box, size: int = 224) -> np.ndarray:
    """Cut ``crop_box`` out of an (S, S) mask, 0 beyond it, and resize it to (size, size) uint8 {0, 255}.

    Raises
    ------
    ValueError
        If the box is empty or shows nothing of the mask.
    """
    top, left, bottom, right = inner = _within(crop_box, (slice(0, mask.shape[0]), slice(0, mask.shape[1])))
    if not (top < bottom and left < right):
        raise ValueError(f"crop box {crop_box} shows nothing of a mask of {mask.shape}")
    cut = _padded(mask[top:bottom, left:right], inner, crop_box, cv2.BORDER_CONSTANT)
    return _binary(resize(cut, size, size, nearest=True))


def crop_box(mask: np.ndarray, content: tuple[slice, slice], config: EnhanceConfig) -> Box:
    """The region of the letterbox that becomes the result: (top, left, bottom, right).

    The lung box with its margin, or the whole content when cropping is off (a mask that covers all
    the content has the content as its box). Sides further apart than ``max_squash`` are brought nearer
    by the film's own pixels, as far as it reaches. With ``keep_aspect`` the box is widened to a square,
    which stays on the content as long as the content is large enough.
    """
    limits = (content[0].start, content[1].start, content[0].stop, content[1].stop)
    box = limits
    if config.crop_to_lungs:
        left, top, width, height = cv2.boundingRect(mask)
        rows, columns = round(height * config.crop_margin), round(width * config.crop_margin)
        box = (top - rows, left - columns, top + height + rows, left + width + columns)
    if config.keep_aspect:
        box = _within(box, content)
    height, width = box[2] - box[0], box[3] - box[1]
    least = max(height, width) if config.keep_aspect else round(max(height, width) / config.max_squash)
    film = mask.shape if config.keep_aspect else (limits[2] - limits[0], limits[3] - limits[1])
    rows, columns = max(height, min(least, film[0])), max(width, min(least, film[1]))
    top, bottom = _widen(box[0], box[2], rows, limits[0], limits[2], mask.shape[0])
    left, right = _widen(box[1], box[3], columns, limits[1], limits[3], mask.shape[1])
    return top, left, bottom, right


def _widen(start: int, stop: int, side: int, low: int, high: int, size: int) -> tuple[int, int]:
    """Widen ``start:stop`` to ``side`` around its centre, inside ``low:high`` if that is wide enough."""
    if side == stop - start:
        return start, stop
    spare = (high - low) - side
    begin = low + spare // 2 if spare < 0 else min(max(start - (side - (stop - start)) // 2, low), high - side)
    begin = min(max(begin, 0), size - side)
    return begin, begin + side


def _refuse_flat(pixels: np.ndarray, inside: np.ndarray | None) -> None:
    gray = np.ascontiguousarray(pixels) if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    low, high = percentile_levels(level_counts(gray if inside is None else gray[inside > 0]), *_MOST)
    if low == high:
        raise ImageRejected("constant_image", "nearly all pixels about the lungs have one value: there is no picture.")


def _filter(pixels: np.ndarray, inside: np.ndarray | None, config: EnhanceConfig) -> np.ndarray:
    """CLAHE, blur, stretch to uint8, sharpen; statistics from ``inside`` where it is given."""
    if inside is not None:
        pixels = _spread(pixels, inside)
    if config.clahe.enabled:
        pixels = _clahe(pixels, config.clahe)
    if config.gaussian_blur.enabled:
        side = config.gaussian_blur.kernel_size
        pixels = cv2.GaussianBlur(pixels, (side, side), config.gaussian_blur.sigma)
    pixels = _stretch(pixels, inside, config.min_max)
    if config.sharpen.enabled:
        pixels = _sharpen(pixels, config.sharpen)
    return pixels


def _spread(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Replace every pixel outside ``inside`` by the nearest one within."""
    outside = cv2.bitwise_not(inside)
    _, labels = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.empty(int(labels.max()) + 1, np.intp)
    within = np.flatnonzero(inside)
    nearest[labels.reshape(-1)[within]] = within
    return pixels.reshape(-1, *pixels.shape[2:])[nearest[labels]]


def _clahe(pixels: np.ndarray, config: ClaheConfig) -> np.ndarray:
    """CLAHE of a gray image, or of the luminance of an RGB image."""
    if pixels.ndim == 3:
        luminance, red, blue = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb))
        return cv2.cvtColor(cv2.merge((_clahe(luminance, config), red, blue)), cv2.COLOR_YCrCb2RGB)
    equaliser = cv2.createCLAHE(config.clip_limit, (config.tile_grid, config.tile_grid))
    if pixels.dtype == np.uint8:
        return equaliser.apply(pixels)
    equaliser.setBitShift(_CLAHE_BIN_SHIFT)
    total = np.zeros(pixels.shape, np.float32)
    for origin in _CLAHE_ORIGINS:
        shifted = cv2.add(pixels, np.full(pixels.shape, origin, np.uint16))  # stops at 65535
        cv2.accumulate(equaliser.apply(shifted), total)
    return np.rint(total / len(_CLAHE_ORIGINS)).astype(np.uint16)


def _stretch(pixels: np.ndarray, inside: np.ndarray | None, config: MinMaxConfig) -> np.ndarray:
    """Stretch percentiles to 0..255; without ``enabled`` only reduce to 8 bits."""
    full = int(np.iinfo(pixels.dtype).max)
    low, high = 0, full
    if config.enabled:
        gray = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        low, high = _percentiles(gray if inside is None else gray[inside > 0], config)
    if (low, high) == (0, full):
        return eight_bit(pixels)
    table = (np.arange(full + 1, dtype=np.float64) - low) * (255.0 / (high - low))
    return cv2.LUT(pixels, np.rint(np.clip(table, 0, 255)).astype(np.uint8))


def _percentiles(values: np.ndarray, config: MinMaxConfig) -> tuple[int, int]:
    """The two percentiles (inverted CDF); the extremes, or the full range, where they coincide."""
    full = int(np.iinfo(values.dtype).max)
    low, high = percentile_levels(level_counts(values), config.low_percentile, config.high_percentile)
    if low == high:
        low, high = int(values.min()), int(values.max())
    return (low, high) if low < high else (0, full)


def _sharpen(pixels: np.ndarray, config: SharpenConfig) -> np.ndarray:
    """Unsharp mask: add ``amount`` times the difference from a Gaussian blur."""
    blurred = cv2.GaussianBlur(pixels, (0, 0), config.sigma)
    return cv2.addWeighted(pixels, 1.0 + config.amount, blurred, -config.amount, 0.0)


def _within(box: Box, content: tuple[slice, slice]) -> Box:
    """The part of a box that lies on the content."""
    rows, columns = content
    return (
        max(box[0], rows.start),
        max(box[1], columns.start),
        min(box[2], rows.stop),
        min(box[3], columns.stop),
    )


def _binary(mask: np.ndarray) -> np.ndarray:
    return cv2.threshold(mask, 0, 255, cv2.THRESH_BINARY)[1]


def _binary_content(mask: np.ndarray, content: tuple[slice, slice]) -> np.ndarray:
    """``mask`` as 0 and 255, and 0 in the padding."""
    clean = np.zeros_like(mask)
    clean[content] = _binary(np.ascontiguousarray(mask[content]))
    return clean


def _beyond(config: EnhanceConfig) -> int:
    """Black beside the lungs' own box would show where the film ends, so it is mirrored; a square crop shows its shape
    anyway."""
    return cv2.BORDER_CONSTANT if config.keep_aspect else cv2.BORDER_REFLECT_101


def _padded(pixels: np.ndarray, inner: Box, box: Box, beyond: int) -> np.ndarray:
    """Put a part back into its crop box; ``beyond`` is OpenCV's border type: black, or the part mirrored."""
    if inner == box:
        return pixels
    edges = (inner[0] - box[0], box[2] - inner[2], inner[1] - box[1], box[3] - inner[3])
    return cv2.copyMakeBorder(pixels, *edges, beyond, value=0)


def _check(square: np.ndarray, mask: np.ndarray, content: tuple[slice, slice]) -> None:
    if square.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected a uint8 or uint16 image, got {square.dtype}")
    if square.ndim not in (2, 3) or square.shape[0] != square.shape[1] or square.shape[2:] not in ((), (3,)):
        raise ValueError(f"expected a square gray or RGB image, got {square.shape}")
    if mask.shape != square.shape[:2] or mask.dtype != np.uint8:
        raise ValueError(f"expected a uint8 mask of {square.shape[:2]}, got {mask.dtype} {mask.shape}")
    if any(not 0 <= side.start < side.stop <= square.shape[0] for side in content):
        raise ValueError(f"content {content} does not lie inside the image")
