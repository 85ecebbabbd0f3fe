"""What each part of one image's way costs, on one thread, and how far the contenders' tensors are apart."""

import hashlib
import io
import statistics
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from prepare_inputs import Film

from penumo_assets.cohort.plan import image_id_of
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.imaging.decode import decode_image, decode_png, encode_png
from penumo_assets.imaging.enhance import enhance
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.imaging.pack import load_npz, pack_tensor

R = TypeVar("R")


def parts_of(films: list[Film], config: PrepareConfig, repeats: int = 5) -> dict[str, float]:
    """Median processor seconds of each part, masks given."""
    cv2.setNumThreads(1)
    spent: dict[str, list[float]] = {}

    def timed(part: str, function: Callable[[], R]) -> R:
        started = time.process_time()
        result = function()
        spent.setdefault(part, []).append(time.process_time() - started)
        return result

    for film in films * repeats:
        data = timed("read", film.path.read_bytes)
        timed("hash", lambda data=data: hashlib.sha256(data).hexdigest())
        decoded = timed("decode", lambda data=data: decode_image(data, config.decode))
        box = Letterbox.fit(*decoded.size)
        square = timed("letterbox", lambda box=box, decoded=decoded: box.apply(decoded.pixels))
        raw = timed("encode raw", lambda decoded=decoded: decoded.kept or encode_png(decoded.pixels))
        mask_bytes = film.mask.read_bytes()
        mask = timed("decode mask", lambda mask_bytes=mask_bytes: decode_png(mask_bytes))
        result = timed("enhance", lambda s=square, m=mask, b=box: enhance(s, m, b.content, config.enhance))
        timed("encode preprocessed", lambda result=result: encode_png(result.image))
        tensor = pack_tensor(result.image, result.mask)
        timed("encode tensor", lambda tensor=tensor: npz_bytes(tensor))
        timed("hash outputs", lambda raw=raw: hashlib.sha256(raw).hexdigest())
    return {part: statistics.median(values) for part, values in spent.items()}


def compare_outputs(films: list[Film], folder: Path, name: str) -> str:
    """How far the tensors of the baseline ``name`` are from the job's, in words; both wrote below ``folder``."""
    job = max(folder.glob("job-*"), key=lambda path: int(path.name.split("-")[1]))
    levels: list[Any] = []
    overlaps = []
    for index, film in enumerate(films):
        path = folder / f"{name}-1" / f"{film.path.stem}.npz"
        if not path.exists():
            continue
        own = job / "processing" / "output" / "npz" / f"{image_id_of(f'{index:05d}{film.path.suffix}')}.npz"
        with np.load(path) as archive:
            theirs = archive["image"].astype(int)
        ours = load_npz(own).astype(int)
        levels.append(np.abs(ours[..., 0] - theirs[..., 0]))
        inside, outside = ours[..., 3] > 0, theirs[..., 3] > 0
        overlaps.append(2 * (inside & outside).sum() / (inside.sum() + outside.sum()))
    worst = max(int(difference.max()) for difference in levels)
    mean = float(np.mean([difference.mean() for difference in levels]))
    return f"{mean:.2f} gray levels apart on average, {worst} at most; masks Dice {min(overlaps):.4f} at least"


def npz_table(films: list[Film]) -> None:
    """Size, processor time to write and time to load, per way to compress a tensor."""
    tensors = []
    config = PrepareConfig()
    for film in films:
        decoded = decode_image(Path(film.path).read_bytes(), config.decode)
        box = Letterbox.fit(*decoded.size)
        square, mask = box.apply(decoded.pixels), decode_png(film.mask.read_bytes())
        result = enhance(square, mask, box.content, config.enhance)
        tensors.append(pack_tensor(result.image, result.mask))
    print(f"{'method':<12}{'KB':>8}{'write ms':>10}{'load ms':>10}")
    ways: dict[str, Callable[[np.ndarray], bytes]] = {"as written": npz_bytes, "stored": partial(_zipped, level=None)}
    ways |= {f"zlib {level}": partial(_zipped, level=level) for level in (1, 2, 6, 9)}
    for name, write in ways.items():
        sizes, writes, loads = [], [], []
        for tensor in tensors * 10:
            started = time.process_time()
            data = write(tensor)
            writes.append(time.process_time() - started)
            started = time.process_time()
            load_npz(data)
            loads.append(time.process_time() - started)
            sizes.append(len(data))
        figures = statistics.mean(sizes) / 1000, 1000 * statistics.median(writes), 1000 * statistics.median(loads)
        print(f"{name:<12}{figures[0]:>8.1f}{figures[1]:>10.2f}{figures[2]:>10.2f}")


def _zipped(tensor: np.ndarray, level: int | None) -> bytes:
    buffer, method = io.BytesIO(), zipfile.ZIP_STORED if level is None else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer, "w") as file, io.BytesIO() as member:
        np.save(member, tensor)
        file.writestr("image.npy", member.getvalue(), compress_type=method, compresslevel=level)
    return buffer.getvalue()
