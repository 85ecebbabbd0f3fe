"""The tensor file: one NPZ archive per image, key ``image``, (224, 224, 4) uint8 [R, G, B, Mask].

`npz_writer` writes it, apart because the programs that only read it have no libdeflate.
"""

import io
import zipfile
from pathlib import Path

import numpy as np

SIZE = 224
SHAPE = (SIZE, SIZE, 4)
KEY = "image"
MEMBER = f"{KEY}.npy"
_PIXEL_BYTES = SIZE * SIZE * 4
_MAX_MEMBER_BYTES = _PIXEL_BYTES + 1024
_MAX_FILE_BYTES = _PIXEL_BYTES + 16 * 1024


class NpzError(ValueError):
    """A tensor file that is not what the contract says; the message names what is wrong."""


def pack_tensor(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Join an image and its mask.

    Parameters
    ----------
    image : numpy.ndarray
        (224, 224, 3) uint8 RGB.
    mask : numpy.ndarray
        (224, 224) uint8, 0 or 255.

    Returns
    -------
    numpy.ndarray
        (224, 224, 4) uint8.

    Raises
    ------
    ValueError
        For any other shape, dtype or mask value.
    """
    if image.shape != (SIZE, SIZE, 3) or image.dtype != np.uint8:
        raise ValueError(f"expected a (224, 224, 3) uint8 image, got {image.shape} {image.dtype}")
    if mask.shape != (SIZE, SIZE) or mask.dtype != np.uint8:
        raise ValueError(f"expected a (224, 224) uint8 mask, got {mask.shape} {mask.dtype}")
    if np.any((mask != 0) & (mask != 255)):
        raise ValueError("a mask holds only 0 and 255")
    tensor = np.empty(SHAPE, np.uint8)
    for channel in range(3):  # one at a time is three times as fast
        tensor[..., channel] = image[..., channel]
    tensor[..., 3] = mask
    return tensor


def load_npz(source: bytes | Path) -> np.ndarray:
    """Read a tensor file, trusting nothing in it.

    Returns
    -------
    numpy.ndarray
        (224, 224, 4) uint8.

    Raises
    ------
    NpzError
        If it is not a ZIP archive with the one member ``image.npy``, holds a pickle, another shape,
        dtype or order, or would expand beyond a tensor's size.
    FileNotFoundError
        If ``source`` is a path where there is no file.
    """
    if isinstance(source, Path) and source.stat().st_size > _MAX_FILE_BYTES:
        raise NpzError(f"the file has {source.stat().st_size} bytes: more than a tensor can need")
    data = source.read_bytes() if isinstance(source, Path) else source
    if len(data) > _MAX_FILE_BYTES:
        raise NpzError(f"the archive has {len(data)} bytes: more than a tensor can need")
    try:
        member = _read_member(data)
        array = _parse_array(member)
    except NpzError:
        raise
    except Exception as error:
        raise NpzError(f"the archive cannot be read ({type(error).__name__}): it is damaged") from None
    return array


def _read_member(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = file.infolist()
        if [member.filename for member in members] != [MEMBER]:
            raise NpzError(f"expected the one array {KEY!r} in the archive")
        if members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NpzError("the archive is compressed in a way that is not read")
        if members[0].file_size > _MAX_MEMBER_BYTES:
            raise NpzError("the archive declares more data than a tensor has")
        with file.open(members[0]) as member:
            # Whatever the archive declares, no more than this is inflated.
            return member.read(_MAX_MEMBER_BYTES + 1)


def _parse_array(content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise NpzError("the array has a format version that is not read")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise NpzError("the array is a pickle: refused")
    if shape != SHAPE or dtype != np.uint8 or fortran_order:
        raise NpzError(f"expected a {SHAPE} uint8 array, got {shape} {dtype}")
    pixels = content[stream.tell() :]
    if len(pixels) != _PIXEL_BYTES:
        raise NpzError(f"the array has {len(pixels)} bytes; {_PIXEL_BYTES} are declared")
    return np.frombuffer(pixels, np.uint8).reshape(SHAPE).copy()
