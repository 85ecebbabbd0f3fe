"""Decode many damaged files in a process of its own and report what happened, as JSON.

Run by ``test_fuzz.py``: a decoder that crashes takes only this process with it.

    python -m penumo_assets_tests.imaging.fuzz COUNT SEED [FOLDER]
"""

import faulthandler
import io
import json
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image, read_back
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.png_chunks import SIGNATURE
from penumo_assets_tests.imaging.samples import all_samples, file_bytes
from penumo_assets_tests.memory import peak_mib

# Wall-clock time; the report's seconds are processor time, which other work on the machine leaves alone.
_SECONDS_UNTIL_HANGING = 60
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to four random ways; half of the damage falls on its first 2 KiB.

    Half of the files keep their length, so that the damage reaches the decoders behind the checks of
    the structure; PNG checksums are then made right again for the same reason.
    """
    damaged = bytearray(data)
    in_place = rng.random() < 0.5
    for _ in range(int(rng.integers(1, 5))):
        if not damaged:
            break
        reach = min(len(damaged), 2048) if rng.random() < 0.5 else len(damaged)
        at = int(rng.integers(reach))
        span = int(rng.integers(1, 65))
        match int(rng.integers(3 if in_place else 7)):
            case 0:
                damaged[at] ^= 1 << int(rng.integers(8))
            case 1:
                damaged[at : at + span] = rng.bytes(min(span, len(damaged) - at))
            case 2:
                size = min(int(rng.choice((1, 2, 4))), len(damaged) - at)
                order = "little" if rng.random() < 0.5 else "big"
                extreme = int(rng.choice(_EXTREMES)) & ((1 << 8 * size) - 1)
                damaged[at : at + size] = extreme.to_bytes(size, order)
            case 3:
                del damaged[at : at + span]
            case 4:
                damaged[at:at] = rng.bytes(span)
            case 5:
                source = int(rng.integers(len(damaged)))
                damaged[at:at] = damaged[source : source + span]
            case 6:
                del damaged[int(rng.integers(len(damaged))) :]
    if in_place and damaged.startswith(SIGNATURE):
        _mend_checksums(damaged)
    return bytes(damaged)


def _mend_checksums(png: bytearray) -> None:
    position = len(SIGNATURE)
    while position + 12 <= len(png):
        end = position + 8 + int.from_bytes(png[position : position + 4], "big")
        if end + 4 > len(png):
            return
        png[end : end + 4] = zlib.crc32(png[position + 4 : end]).to_bytes(4, "big")
        position = end + 4


def _relabelled(data: bytes) -> bytes:
    """A DICOM file that claims to be a chest radiograph, so that its pixels are decoded; else as it is."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
        return file_bytes(dataset)
    except Exception:
        return data


def main(count: int, seed: int, folder: Path | None) -> dict[str, object]:
    files = all_samples()
    if folder is not None:
        files = {path.name: _relabelled(path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}
    names = sorted(files)
    whole = DecodeConfig(min_side=1)
    # Below the least value that is allowed, so that these small files too are decoded at a reduced size.
    configs = (whole, whole.model_copy(update={"reduce_to": 16}))
    before = peak_mib()
    outcomes: Counter[str] = Counter()
    unexpected, slowest = [], (0.0, "")
    for number in range(count):
        name = names[number % len(names)]
        data = mutate(files[name], np.random.default_rng([seed, number]))
        print(f"{number} {name}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(_SECONDS_UNTIL_HANGING, exit=True)
        started = time.process_time()
        try:
            image = decode_image(data, configs[number // len(names) % 2])
            outcomes["decoded"] += 1
            if image.kept and not np.array_equal(read_back(image.kept), image.pixels):
                unexpected.append(f"{number} {name}: what is kept is another picture")
        except ImageRejected as error:
            outcomes[error.code] += 1
        except BaseException as error:
            unexpected.append(f"{number} {name}: {error!r}")
        slowest = max(slowest, (time.process_time() - started, f"{number} {name}"))
        faulthandler.cancel_dump_traceback_later()
    return {
        "outcomes": dict(outcomes),
        "unexpected": unexpected,
        "slowest_seconds": slowest[0],
        "slowest": slowest[1],
        "peak_growth_mib": peak_mib() - before,
    }


if __name__ == "__main__":
    report = main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    print(json.dumps(report))
