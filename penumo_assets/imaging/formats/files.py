"""Read a file that may come from anywhere: a plain one, of a bounded size."""

import os
import stat
from pathlib import Path

from penumo_assets.imaging.errors import ImageRejected

# Opening a pipe must not wait for somebody to write into it. Elsewhere than on POSIX there are no such files.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_plain_file(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file.

    Raises
    ------
    ImageRejected
        ``not_a_file`` for a folder, a pipe, a socket or a device, ``too_large`` for more than ``max_bytes`` bytes.
    OSError
        If there is no such file, or it may not be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise not_a_file()
    with open(os.open(path, _FLAGS), "rb") as file:
        # Memory for the largest file would be got and given back page by page: 3 ms of a DICOM file's 60.
        data = file.read(min(os.fstat(file.fileno()).st_size, max_bytes) + 1)
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


def not_a_file() -> ImageRejected:
    return ImageRejected("not_a_file", "it is no plain file but a link, a folder, a pipe, a socket or a device.")


def too_large(max_bytes: int) -> ImageRejected:
    return ImageRejected("too_large", f"the file has more than {max_bytes / 1e6:.0f} million bytes.")
