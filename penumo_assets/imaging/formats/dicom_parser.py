"""Parse DICOM files that may come from anywhere: only what decoding needs, and never more than an image can need.

Only the elements listed here are parsed at all; names, birth dates and free text are skipped.
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import pydicom
from pydicom import config as pydicom_config
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_partial
from pydicom.tag import Tag

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.errors import ImageRejected

# pydicom quotes header values in warnings and log records: none of it may reach a log.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

_ELEMENTS = (
    "SpecificCharacterSet", "SOPClassUID", "Modality", "PresentationIntentType",
    "PatientID", "PatientSex", "PatientAge", "NominalScannedPixelSpacing",
    "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "PatientOrientation", "ImagerPixelSpacing",
    "PixelSpacing", "BurnedInAnnotation", "RecognizableVisualFeatures", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelAspectRatio", "PresentationLUTShape", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "ModalityLUTSequence", "RescaleIntercept", "RescaleSlope",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "PixelData", "FloatPixelData", "DoubleFloatPixelData",
)  # fmt: skip
_TAGS = [Tag(name) for name in _ELEMENTS]
_PIXELS = tag_for_keyword("PixelData")
_SEQUENCES = {tag_for_keyword(name) for name in _ELEMENTS if name.endswith("Sequence")}
# The types that large values may have, ``None`` where a file names no types. Of others pydicom makes lists, which take
# up to eighty times the value's size where it is text full of backslashes.
_BINARY = {"OB", "OW", "UN", None}
_TYPES = {"TableData": _BINARY | {"US", "SS"}, "PixelData": _BINARY | {"OF", "OD"}}
_BULK = {tag_for_keyword(name): _TYPES[name[-9:]] for name in _ELEMENTS if name.endswith(tuple(_TYPES))}

# A header has some hundreds of elements, a few of them sequences of a few items, and takes some kilobytes; its
# lookup tables take up to 128 KiB each. pydicom would parse millions of them, at 40 microseconds and a kilobyte each.
_MAX_READS = 50_000
_MAX_ITEMS = 1_000
_MAX_VALUE_BYTES = 1 << 20
MAX_ALTERNATIVES = 8  # of the windows, tables or codes that a header offers, these many are looked at
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")

_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
# Preamble, mark and the transfer syntax Explicit VR Little Endian: a file's head without anything else in it.
_PLAIN_HEAD = bytes(128) + b"DICM\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"


def looks_like(data: bytes) -> bool:
    """Whether the bytes are a DICOM file, or one of the older kind without a preamble.

    Files without the ``DICM`` mark must begin with four well-formed elements in ascending order, the
    first of group 0002 or 0008.
    """
    if data[128:132] == b"DICM":
        return True
    position, last = 0, -1
    for count in range(4):
        if position == len(data) and count >= 2:
            return True
        if position + 8 > len(data):
            return False
        group, element = struct.unpack_from("<HH", data, position)
        tag = group << 16 | element
        if tag <= last or (not count and group not in (0x0002, 0x0008)):
            return False
        last = tag
        vr = data[position + 4 : position + 6]
        if vr in _LONG_VRS and position + 12 <= len(data):
            position += 12 + struct.unpack_from("<I", data, position + 8)[0]
        elif vr in _VRS:
            position += 8 + struct.unpack_from("<H", data, position + 6)[0]
        else:
            position += 8 + struct.unpack_from("<I", data, position + 4)[0]
        if position > len(data):
            return False
    return True


class _Deflated(Exception):
    """The parser wants to inflate the rest of the file, from ``start`` on."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start


class _Source(io.BytesIO):
    """A file for pydicom's parser that gives out a bounded number of elements and lets nothing be inflated.

    The parser reads at least once for each element, item and nested data set, and asks for all the rest only in
    order to inflate it: whatever it takes the file for, this holds. It takes values of the file's head apart before
    anybody can look at them, so a head is as short as a header.
    """

    reads = 0
    head_bytes: int | None = 0  # ``None`` behind the head

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise _Deflated(self.tell())
        self.reads += 1
        if self.reads > _MAX_READS:
            raise ImageRejected("corrupt", "the DICOM header has more elements than an image can need.")
        if self.head_bytes is not None:
            self.head_bytes += size
            if self.head_bytes > _MAX_VALUE_BYTES:
                raise ImageRejected("corrupt", "the head of the DICOM file is longer than one can need.")
        return super().read(size)


def read_dataset(data: bytes, config: DecodeConfig) -> pydicom.Dataset:
    """Parse the elements that decoding needs, with a transfer syntax even where the file names none.

    Raises
    ------
    ImageRejected
        ``too_large`` for a deflated file that inflates beyond what one image can need, ``truncated``
        or ``corrupt`` for one that is damaged or has more elements, items or bytes in its header than an
        image can need.
    """
    try:
        dataset = _parsed(_Source(data))
    except _Deflated as deflated:
        try:
            dataset = _parsed(_inflated(memoryview(data)[deflated.start :], config.max_file_bytes))
        except _Deflated:
            raise ImageRejected("corrupt", "the deflated file holds another one.") from None
    _refuse_bloated(dataset)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax if little else pydicom.uid.ExplicitVRBigEndian
    return dataset


def _parsed(source: _Source) -> pydicom.Dataset:
    try:
        return read_partial(source, stop_when=_behind_the_pixels(source), force=True, specific_tags=list(_TAGS))
    except (ImageRejected, _Deflated):
        raise
    except Exception as error:
        name = type(error).__name__
        raise ImageRejected("corrupt", f"the DICOM file's structure is damaged ({name}).") from None


def _behind_the_pixels(source: _Source) -> Callable[[Any, str | None, int], bool]:
    """Stop at the element after the pixel data: what follows is padding. Refuse large values of a wrong type."""
    seen = False

    def stop(tag: Any, vr: str | None, length: int) -> bool:
        nonlocal seen
        source.head_bytes = None
        if seen:
            return True
        if vr not in _BULK.get(tag, (vr,)):
            raise ImageRejected(
                "corrupt", "the pixel data or a table in the DICOM file has a type that it cannot have."
            )
        seen = tag == _PIXELS
        return False

    return stop


def _inflated(deflated: memoryview, limit: int) -> _Source:
    """The data set of a deflated file behind a plain head; measured first, in small pieces that are not kept."""
    stream, pending, total = zlib.decompressobj(-zlib.MAX_WBITS), deflated, 0
    while pending and not stream.eof:
        try:
            total += len(stream.decompress(pending, 1 << 20))
        except zlib.error:
            raise ImageRejected("corrupt", "the deflated file cannot be inflated.") from None
        pending = memoryview(stream.unconsumed_tail)
        if total > limit:
            raise ImageRejected("too_large", "the deflated file inflates to more than one image can need.")
    if not stream.eof:
        raise ImageRejected("truncated", "the deflated file ends early: it was cut off.")
    return _Source(_PLAIN_HEAD + zlib.decompress(deflated, -zlib.MAX_WBITS))


def _refuse_bloated(dataset: pydicom.Dataset) -> None:
    """pydicom takes a value apart when it is asked for, however large it is: refuse what no image can need."""
    size = items = 0
    for element in dataset.values():
        if not isinstance(element, RawDataElement):
            # A sequence of undefined length is parsed already; only the first items of sequences are looked at.
            for item in element.value[:MAX_ALTERNATIVES] if element.VR == "SQ" else ():
                _refuse_bloated(item)
        elif element.VR == "SQ" and element.tag not in _SEQUENCES:
            raise ImageRejected("corrupt", "the DICOM header has a sequence where a value should be.")
        elif element.tag not in _BULK and element.value:
            size += len(element.value)
            items += sum(element.value.count(mark) for mark in _ITEMS) if size <= _MAX_VALUE_BYTES else 0
    if size > _MAX_VALUE_BYTES or items > _MAX_ITEMS:
        raise ImageRejected("corrupt", "the DICOM header has more in its elements than an image can need.")
