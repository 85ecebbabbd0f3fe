"""JPEG to pixels: files, and the streams of all of its kinds that DICOM files hold.

Lossy JPEG of 8 bits is decoded by libjpeg-turbo in strict mode (simplejpeg), at a reduced size where one is wanted;
lossless JPEG and other depths by libjpeg-turbo through imagecodecs.
"""

import imagecodecs
import numpy as np
import simplejpeg

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.decoded import DecodedImage, reduction
from penumo_assets.imaging.formats.exif import upright
from penumo_assets.imaging.formats.jpeg_stream import StreamHeader, read_jpeg, read_size
from penumo_assets.imaging.formats.pixels import check_size, finished, to_luminance
from penumo_assets.imaging.letterbox import reduced_size


def looks_like(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG file does."""
    return data.startswith(b"\xff\xd8\xff")


def decode(data: bytes, config: DecodeConfig) -> DecodedImage:
    """Decode a JPEG file: 8-bit gray or colour, turned upright as its EXIF block says.

    The decoder runs in strict mode: a stream that libjpeg would fill up with gray is refused.

    Raises
    ------
    ImageRejected
    """
    frame = read_size(data)
    check_size(frame.height, frame.width, frame.components, config)
    header = read_jpeg(data)
    if header.precision != 8:
        raise ImageRejected("unsupported_depth", f"a JPEG of {header.precision} bits per sample is not supported.")
    if header.components not in (1, 3):
        raise ImageRejected("unsupported_colour", "the JPEG is neither gray nor RGB (CMYK?); export it as gray.")
    colour = config.keep_colour and header.components == 3
    bare = header.bare
    pixels = decode_samples(bare or data, header, reduction(header.height, header.width, config), colour=colour)
    pixels = upright(to_luminance(pixels, keep_colour=colour), header.orientation)
    size = (header.height, header.width) if header.orientation < 5 else (header.width, header.height)
    # Many programs do not turn pictures, and none but ours takes luminance for what a picture in colour shows.
    kept = None if colour or header.orientation > 1 else bare
    return finished(pixels, size, 8, "jpeg", config, [], kept)


def decode_luminance(data: bytes) -> np.ndarray:
    """Read back a JPEG file that `decode` has kept: (H, W) uint8.

    Raises
    ------
    ImageRejected
    """
    return decode_samples(data, read_jpeg(data))


def decode_samples(
    stream: bytes, header: StreamHeader, factor: int = 1, *, colour: bool = False, plain: bool = False
) -> np.ndarray:
    """The samples of a JPEG: (H, W), or (H, W, 3) RGB, uint8 or uint16.

    Parameters
    ----------
    stream : bytes
    header : StreamHeader
        What `read_jpeg` found in it.
    factor : int
        1, 2, 4 or 8. Lossy JPEG of 8 bits is decoded at its size divided by it, anything else at its own size.
    colour : bool
        Whether three components are wanted, rather than their luminance.
    plain : bool
        Whether three components are red, green and blue as they are, against what libjpeg makes of the stream.

    Raises
    ------
    ImageRejected
        ``corrupt`` for a stream that cannot be decoded, or that libjpeg would mend or fill up with gray.
    """
    if header.lossless or header.precision != 8 or plain:
        return _decode_whole(stream, plain=plain or (header.lossless and header.components == 3))
    height, width = reduced_size((header.height, header.width), factor)
    scale = {"min_height": height, "min_width": width, "min_factor": factor}
    try:
        pixels = simplejpeg.decode_jpeg(stream, colorspace="RGB" if colour else "GRAY", strict=True, **scale)
    except ValueError:
        raise _damaged() from None
    return pixels if colour else pixels[..., 0]


def _decode_whole(stream: bytes, *, plain: bool) -> np.ndarray:
    space = "RGB" if plain else None
    try:
        return imagecodecs.jpeg8_decode(stream, colorspace=space, outcolorspace=space)
    except Exception:  # libjpeg's errors have a type of their own
        raise _damaged() from None


def _damaged() -> ImageRejected:
    return ImageRejected("corrupt", "the JPEG's picture data is damaged or incomplete.")
