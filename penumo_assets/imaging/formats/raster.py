"""PNG and JPEG files to pixels."""

import cv2
import numpy as np
import simplejpeg

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import jpeg, png
from penumo_assets.imaging.formats.decoded import DecodedImage, Tags, eight_bit, reduced, reduction
from penumo_assets.imaging.letterbox import reduced_size

# Decoded samples of one image may take this many bytes per permitted pixel: enough for 16-bit gray
# or 8-bit RGBA at the largest permitted size, so that one image stays far below 1 GiB.
_BYTES_PER_PIXEL = 4

# JPEG and rounding in viewers tint gray images by a few levels; a marker drawn in colour is far above.
_COLOUR_SPREAD = 16


def decode_png_file(data: bytes, config: DecodeConfig) -> DecodedImage:
    """Decode a PNG file: 1 to 16 bits, gray, palette or colour, alpha laid over black.

    Raises
    ------
    ImageRejected
    """
    parts, pixels = _png_pixels(data, config)
    notes = []
    bits = parts.header.depth
    pixels = _orient(to_luminance(pixels, keep_colour=config.keep_colour), parts.orientation)
    if bits == 16:
        pixels, bits = fill_depth(pixels)
        if bits < 16:
            notes.append(f"depth:{bits}")
    return _finished(pixels, pixels.shape[:2], bits, "png", config, notes)


def decode_gray_png(data: bytes, config: DecodeConfig) -> np.ndarray:
    """A PNG file, such as a drawn mask, as (H, W) uint8 luminance.

    Raises
    ------
    ImageRejected
        ``not_an_image`` for anything but a PNG, and what a PNG file is refused for; a constant one is not.
    """
    if not data.startswith(png.SIGNATURE):
        raise ImageRejected("not_an_image", "expected a PNG file.")
    _, pixels = _png_pixels(data, config)
    return eight_bit(to_luminance(pixels, keep_colour=False))


def _png_pixels(data: bytes, config: DecodeConfig) -> tuple[png.PngParts, np.ndarray]:
    """The chunks of a PNG file and its samples, (H, W) or (H, W, 3) RGB; nothing is decoded that is too large."""
    header = png.read_header(data)
    channels = {0: 1, 2: 3, 3: 4, 4: 4, 6: 4}[header.colour_type]
    check_size(header.height, header.width, channels * (2 if header.depth == 16 else 1), config)
    parts = png.read_parts(data)
    pixels = png.decode_parts(parts)
    return parts, _over_black(pixels) if pixels.ndim == 3 and pixels.shape[2] == 4 else pixels


def decode_jpeg_file(data: bytes, config: DecodeConfig) -> DecodedImage:
    """Decode a JPEG file: 8-bit gray or colour, turned upright as its EXIF block says.

    The decoder runs in strict mode: a stream that libjpeg would fill up with gray is refused.

    Raises
    ------
    ImageRejected
    """
    frame = jpeg.read_size(data)
    check_size(frame.height, frame.width, frame.components, config)
    header = jpeg.read_jpeg(data)
    if header.precision != 8:
        raise ImageRejected("unsupported_depth", f"a JPEG of {header.precision} bits per sample is not supported.")
    if header.components not in (1, 3):
        raise ImageRejected("unsupported_colour", "the JPEG is neither gray nor RGB (CMYK?); export it as gray.")
    colour = config.keep_colour and header.components == 3
    pixels = decode_jpeg(data, header, reduction(header.height, header.width, config), colour=colour)
    pixels = _orient(to_luminance(pixels, keep_colour=colour), header.orientation)
    size = (header.height, header.width) if header.orientation < 5 else (header.width, header.height)
    return _finished(pixels, size, 8, "jpeg", config, [])


def decode_jpeg(data: bytes, header: jpeg.StreamHeader, factor: int, *, colour: bool = False) -> np.ndarray:
    """The samples of an 8-bit JPEG at its size divided by ``factor`` (1, 2, 4 or 8): (H, W), or (H, W, 3) RGB.

    Raises
    ------
    ImageRejected
        ``corrupt`` for a stream that libjpeg would mend or fill up with gray.
    """
    height, width = reduced_size((header.height, header.width), factor)
    scale = {"min_height": height, "min_width": width, "min_factor": factor}
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB" if colour else "GRAY", strict=True, **scale)
    except ValueError:
        raise ImageRejected("corrupt", "the JPEG's picture data is damaged or incomplete.") from None
    return pixels if colour else pixels[..., 0]


def check_size(height: int, width: int, bytes_per_pixel: int, config: DecodeConfig) -> None:
    """Refuse what a header declares before anything is allocated for it.

    Raises
    ------
    ImageRejected
        ``too_large`` or ``too_small``.
    """
    limit = config.max_megapixels * 1_000_000
    if height * width > limit:
        raise ImageRejected(
            "too_large", f"the header declares {width}x{height} pixels; the limit is {config.max_megapixels:g} million."
        )
    if height * width * bytes_per_pixel > limit * _BYTES_PER_PIXEL:
        raise ImageRejected(
            "too_large", f"the header declares {width}x{height} pixels of {bytes_per_pixel} bytes: too much memory."
        )
    if min(height, width) < config.min_side:
        raise ImageRejected(
            "too_small", f"the image has {width}x{height} pixels; its shorter side needs {config.min_side}."
        )


def to_luminance(pixels: np.ndarray, *, keep_colour: bool) -> np.ndarray:
    """(H, W, 3) RGB to (H, W) luminance (ITU-R BT.601), unless real colour is to be kept."""
    if pixels.ndim == 2:
        return pixels
    if keep_colour and has_colour(pixels):
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def has_colour(pixels: np.ndarray) -> bool:
    """Whether the channels of an (H, W, 3) image differ by more than rounding."""
    spread = _COLOUR_SPREAD if pixels.dtype == np.uint8 else _COLOUR_SPREAD * 257
    red, green, blue = cv2.split(pixels)
    return bool(max(cv2.absdiff(red, green).max(), cv2.absdiff(green, blue).max()) > spread)


def fill_depth(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Shift 10- to 15-bit values that lie in 16-bit samples up to the full range, without loss.

    Returns the pixels and the number of bits that were in use.
    """
    bits = max(8, int(pixels.max()).bit_length())
    return (pixels << (16 - bits) if bits < 16 else pixels), bits


def refuse_constant(pixels: np.ndarray) -> np.ndarray:
    """``pixels`` as they came.

    Raises
    ------
    ImageRejected
        ``constant_image`` when all are equal.
    """
    if pixels.min() == pixels.max():
        raise ImageRejected("constant_image", "all pixels have one value: there is no picture.")
    return pixels


def _finished(
    pixels: np.ndarray, size: tuple[int, int], bits: int, kind: str, config: DecodeConfig, notes: list[str]
) -> DecodedImage:
    factor = reduction(*size, config)
    if factor > 1:
        pixels = reduced(pixels, size, factor)
        notes.append(f"reduced:{factor}")
    return DecodedImage(refuse_constant(pixels), bits, kind, Tags(), size, None, tuple(notes))


def _over_black(pixels: np.ndarray) -> np.ndarray:
    """Composite (H, W, 4) RGBA on black, (H, W, 3) RGB."""
    alpha = pixels[..., 3]
    opaque = np.iinfo(pixels.dtype).max
    colour = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
    if int(alpha.min()) == opaque:
        return colour
    return cv2.multiply(colour, cv2.merge((alpha, alpha, alpha)), scale=1.0 / opaque)


def _orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image upright (Exif 2.3, orientation 1..8)."""
    turned = {
        1: lambda image: image,
        2: lambda image: image[:, ::-1],
        3: lambda image: image[::-1, ::-1],
        4: lambda image: image[::-1],
        5: lambda image: image.swapaxes(0, 1),
        6: lambda image: np.rot90(image, -1),
        7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
        8: lambda image: np.rot90(image),
    }[orientation](pixels)
    return np.ascontiguousarray(turned)
