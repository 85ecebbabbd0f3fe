"""Find images that stand under several patients: the same pixels, or the same picture saved again."""

from dataclasses import asdict, dataclass

import cv2
import numpy as np
import pandas as pd

NEAR_BITS = 2
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


def perceptual_hash(gray: np.ndarray) -> int:
    """64-bit pHash of a (H, W) uint8 image: which of its 8x8 lowest DCT coefficients exceed their median.

    Survives resizing, recompression and changes of brightness. After Zauner, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1.
    """
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW].ravel()
    bits = low > np.median(low[1:])  # the first coefficient is the mean brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def duplicates_across_patients(index: pd.DataFrame, max_distance: int = NEAR_BITS) -> list[DuplicatePair]:
    """Pairs of images of different patients whose hashes differ in at most ``max_distance`` bits.

    Parameters
    ----------
    index : DataFrame with image_id, patient_id, split, perceptual_hash, pixel_sha256.

    Returns
    -------
    list of DuplicatePair, nearest first. Compares all pairs: 25,000 images take seconds.
    """
    hashes = index["perceptual_hash"].to_numpy(np.uint64)
    patients = pd.factorize(index["patient_id"])[0]
    found: list[tuple[int, int, int]] = []
    for i in range(len(hashes) - 1):
        distance = np.bitwise_count(hashes[i + 1 :] ^ hashes[i])
        near = np.flatnonzero((distance <= max_distance) & (patients[i + 1 :] != patients[i]))
        found.extend((int(distance[j]), i, i + 1 + int(j)) for j in near)
    columns = {name: index[name].tolist() for name in ("image_id", "split", "pixel_sha256")}
    return [
        DuplicatePair(
            image_a=columns["image_id"][i],
            image_b=columns["image_id"][j],
            split_a=columns["split"][i],
            split_b=columns["split"][j],
            distance=distance,
            identical=columns["pixel_sha256"][i] == columns["pixel_sha256"][j],
        )
        for distance, i, j in sorted(found)
    ]
