"""Look for planted words in everything that was written: in every spelling, inside archives, pictures and databases.

A planted word is `MARK` and a number, so that one pattern finds all of them and a hit tells which place leaked. It
is made of letters and digits, which no quoting for a URL or a shell changes.
"""

import base64
import gzip
import io
import re
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd

MARK = "QZXJKWVB"
_DIGITS = 4
_DATA_URI = re.compile(rb"data:[a-z/+.-]+;base64,([A-Za-z0-9+/=]+)")
_MOST_BYTES = 64 * 2**20  # of one inflated stream
_DEEPEST = 5


def word(number: int) -> str:
    """The planted word of a number: 12 letters and digits, which every text of DICOM can hold."""
    return f"{MARK}{number:0{_DIGITS}d}"


def hits(data: bytes, extra: Iterable[str] = ()) -> set[str]:
    """The planted words, and those of ``extra``, that stand in ``data`` in some spelling."""
    low = data.lower()
    found = {f"{MARK}{match[1].decode()}" for match in _WORD.finditer(low)} if MARK.lower().encode() in low else set()
    for encoding in ("utf-16-le", "utf-16-be"):
        mark, end = MARK.lower().encode(encoding), 2 * (len(MARK) + _DIGITS)
        starts = [match.start() for match in re.finditer(re.escape(mark), low)] if mark in low else []
        found |= {low[start : start + end].decode(encoding).upper() for start in starts}
    if any(piece in low for piece in _BASE64):
        found.add(f"{MARK} in base64")
    return found | {text for text in extra if _stands(text, low)}


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """What a file holds: its name, its bytes, and whatever can be unpacked from them."""
    yield "name", str(path.name).encode("utf-8", "surrogateescape")
    data = path.read_bytes()
    if data.startswith(b"SQLite format 3\0"):
        for table, cell in _cells(path):
            yield from _unpacked(table, cell, 0)
    yield from _unpacked("bytes", data, 0)


def search(folder: Path, skip: Callable[[Path], bool], extra: Iterable[str] = ()) -> dict[str, set[str]]:
    """Every hit below ``folder``: the places by planted word. ``skip`` tells which files may hold them."""
    found: dict[str, set[str]] = {}
    extra = list(extra)
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if skip(relative):
            continue
        pieces = contents(path) if path.is_file() and not path.is_symlink() else [("name", path.name.encode())]
        for where, data in pieces:
            for hit in hits(data, extra):
                found.setdefault(hit, set()).add(f"{relative} ({where})")
    return found


def _unpacked(where: str, data: bytes, depth: int) -> Iterator[tuple[str, bytes]]:
    yield where, data
    if depth == _DEEPEST:
        return
    for name, inner in _members(data):
        yield from _unpacked(f"{where} > {name}", inner, depth + 1)


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What lies packed in ``data``, if it is of a kind that packs."""
    if data.startswith(b"\x1f\x8b"):
        yield "gzip", gzip.decompress(data)
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name, name.encode() + b"\n" + archive.read(name)
    elif data.startswith(b"\x89PNG"):
        yield from _chunks(data)
    elif data.startswith(b"PAR1"):
        frame = pd.read_parquet(io.BytesIO(data))
        yield "parquet", frame.to_csv().encode("utf-8", "surrogatepass")
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                yield member.name, member.name.encode() + b"\n" + (file.read() if file else b"")
    elif data[:1] == b"\x78" and (inflated := _inflated(data)):
        yield "zlib", inflated
    for match in _DATA_URI.finditer(data):
        text = match[1].rstrip(b"=")  # one that is cut off, as on a page of a database, is read as far as it goes
        yield "data URI", base64.b64decode(text[: len(text) // 4 * 4])


def _chunks(png: bytes) -> Iterator[tuple[str, bytes]]:
    position = 8
    while position + 8 <= len(png):
        length, kind = int.from_bytes(png[position : position + 4], "big"), png[position + 4 : position + 8]
        body = png[position + 8 : position + 8 + length]
        for start in [match.start() for match in re.finditer(b"\x78", body)] if kind in (b"zTXt", b"iTXt") else []:
            if inflated := _inflated(body[start:]):
                yield kind.decode(), inflated
        position += length + 12


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MOST_BYTES)
    except zlib.error:
        return b""


def _cells(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every text and blob of a database, as it is seen by a reader (pages that were freed are in the file's bytes)."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        tables = [row[0].decode() for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                for cell in row:
                    if isinstance(cell, bytes):
                        yield table, cell


def _stands(text: str, low: bytes) -> bool:
    plain = text.lower().encode()
    if text.isdigit():  # within a digest digits are chance: they must stand alone
        return plain in low and re.search(rb"(?<![0-9a-z.])" + plain + rb"(?![0-9a-z])", low) is not None
    spellings = [text.lower().encode(encoding) for encoding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")]
    return any(spelling in low for spelling in [*spellings, *_in_base64(text.encode())])


def _in_base64(data: bytes) -> list[bytes]:
    """What base64 makes of ``data``, wherever in a longer text it stands, without its ends; in lower case."""
    return [base64.b64encode(b"\0" * shift + data)[2 + shift : -4].lower() for shift in range(3)]


_WORD = re.compile(MARK.lower().encode() + rb"(\d{%d})" % _DIGITS)
_BASE64 = {piece for text in (MARK, MARK.lower(), MARK.title()) for piece in _in_base64(text.encode())}
