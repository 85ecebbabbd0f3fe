"""The one promise of a safetensors file that its own reader does not hold: that the header is small."""

from pathlib import Path

from safetensors import SafetensorError

_MAX_HEADER_BYTES = 1 << 20  # ten thousand tensors; a ResNet has some hundreds


def refuse_huge_header(source: Path | bytes) -> None:
    """Look at the length a file declares: half a million tensors of nothing would take half a minute to list.

    Raises
    ------
    SafetensorError
        If the header is larger than any model needs.
    OSError
        If the file cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            start = file.read(8)
    else:
        start = source[:8]
    if int.from_bytes(start, "little") > _MAX_HEADER_BYTES:
        raise SafetensorError("the header is larger than a model needs")
