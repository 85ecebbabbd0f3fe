"""A folder with links, pipes, sockets and odd names, as somebody with write access to landing could make it."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ODD_NAMES = {
    "back\\slash.png": "back\\slash.png",
    "bell\x07.png": "bell\\x07.png",
    "line\nbreak.png": "line\\nbreak.png",
    "\u202egnp.exe": "\\u202egnp.exe",
    "zero\u200bwidth.png": "zero\\u200bwidth.png",
    "mark\ufeff.png": "mark\\ufeff.png",
    "tag\U000e0041.png": "tag\\U000e0041.png",
    os.fsdecode(b"latin\xe9.png"): "latin\\udce9.png",
    "n" * 246 + ".png": "n" * 246 + ".png",
}
LINKS = ("absolute.png", "dangling.png", "loop", "relative.png", "wards")
SPECIAL = ("pipe.png", "socket.png")


def write_odd_files(folder: Path, outside: Path, data: bytes) -> None:
    """Fill ``folder`` with one file of every kind; links lead to ``outside``, which holds a secret.

    ``hard.png`` is a second name of a file outside: no system tells which of two names was first, so it is a file.
    """
    outside.mkdir()
    (outside / "secret.png").write_bytes(data)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ODD_NAMES:
        (folder / name).write_bytes(data)
    (folder / "absolute.png").symlink_to(outside / "secret.png")
    (folder / "relative.png").symlink_to(os.path.relpath(outside / "secret.png", folder))
    (folder / "dangling.png").symlink_to(outside / "gone.png")
    (folder / "loop").symlink_to("loop")
    (folder / "wards").symlink_to(outside)
    os.link(outside / "secret.png", folder / "hard.png")
    os.mkfifo(folder / "pipe.png")
    _socket(folder / "socket.png")


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's whole path may have only some hundred characters
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail what still waits for a pipe after so many seconds."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
