"""Find images that stand under several patients: the same pixels, or the same picture saved again."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, pairwise

import cv2
import numpy as np
import pandas as pd

NEAR_BITS = 2
MAX_NAMED = 100
_SIDE, _LOW = 32, 8


@dataclass(frozen=True)
class DuplicatePair:
    """Two images of different patients, ``distance`` bits of their perceptual hashes apart (0 to 64)."""

    image_a: str
    image_b: str
    split_a: str
    split_b: str
    distance: int
    identical: bool

    def as_dict(self) -> dict[str, str | int | bool]:
        return asdict(self)


@dataclass(frozen=True)
class Duplicates:
    """How many pairs there are, how many of them across splits, and the nearest of them, at most `MAX_NAMED`."""

    count: int
    across_splits: int
    nearest: tuple[DuplicatePair, ...]


def perceptual_hash(gray: np.ndarray) -> int:
    """64-bit pHash of a (H, W) uint8 image: which of its 8x8 lowest DCT coefficients exceed their median.

    Survives resizing, recompression and changes of brightness. After Zauner, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1.
    """
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW].ravel()
    bits = low > np.median(low[1:])  # the first coefficient is the mean brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def duplicates_across_patients(index: pd.DataFrame, max_distance: int = NEAR_BITS) -> Duplicates:
    """Pairs of images of different patients whose hashes differ in at most ``max_distance`` bits.

    Only pairs that can be near are compared, and only the nearest are kept: a placeholder that stands for
    10,000 patients' missing films makes 50 million pairs.

    Parameters
    ----------
    index : DataFrame with image_id, patient_id, split, perceptual_hash, pixel_sha256.
    max_distance : 0 to 63.
    """
    hashes = index["perceptual_hash"].to_numpy(np.uint64)
    patients, splits = (pd.factorize(index[name])[0] for name in ("patient_id", "split"))
    count, across = 0, 0
    kept: list[list[tuple[int, int]]] = [[] for _ in range(max_distance + 1)]
    for first, others, distances in _near(hashes, patients, max_distance):
        count += len(others)
        across += int(np.count_nonzero(splits[others] != splits[first]))
        for distance in np.unique(distances):
            room = MAX_NAMED - len(kept[distance])
            found = others[distances == distance][:room]
            kept[distance] += [(min(first, int(other)), max(first, int(other))) for other in found]
    columns = {name: index[name].tolist() for name in ("image_id", "split", "pixel_sha256")}
    named = chain.from_iterable(((distance, *pair) for pair in sorted(pairs)) for distance, pairs in enumerate(kept))
    nearest = [
        DuplicatePair(
            image_a=columns["image_id"][i],
            image_b=columns["image_id"][j],
            split_a=columns["split"][i],
            split_b=columns["split"][j],
            distance=distance,
            identical=columns["pixel_sha256"][i] == columns["pixel_sha256"][j],
        )
        for distance, i, j in named
    ]
    return Duplicates(count, across, tuple(nearest[:MAX_NAMED]))


def _near(hashes: np.ndarray, patients: np.ndarray, max_distance: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Every near pair once: an image, the others that are near it, and how many bits they differ.

    Of ``max_distance + 1`` bands of bits, two hashes that differ in ``max_distance`` bits agree in one at least. So
    images are compared only with those that agree in a band; a pair that agrees in several counts in the first.
    """
    edges = [64 * number // (max_distance + 1) for number in range(max_distance + 2)]
    bands = [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]
    for number, band in enumerate(bands):
        values = hashes & band
        order = np.argsort(values, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(values[order])) + 1):
            for position in range(len(group) - 1):
                first, rest = group[position], group[position + 1 :]
                differing = hashes[rest] ^ hashes[first]
                distances = np.bitwise_count(differing)
                near = (distances <= max_distance) & (patients[rest] != patients[first])
                for earlier in bands[:number]:
                    near &= (differing & earlier) != 0
                if near.any():
                    yield int(first), rest[near], distances[near]
