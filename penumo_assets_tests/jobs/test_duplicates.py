"""Near duplicates across patients: the banded search finds what comparing all pairs finds, in bounded memory."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from penumo_assets.jobs.pack.duplicates import MAX_NAMED, duplicates_across_patients


def index_of(hashes: np.ndarray, patients: np.ndarray) -> pd.DataFrame:
    names = [f"i{number:05d}" for number in range(len(hashes))]
    splits = np.where(np.arange(len(hashes)) % 3 == 0, "test", "train")
    return pd.DataFrame(
        {
            "image_id": names,
            "patient_id": patients,
            "split": splits,
            "perceptual_hash": hashes,
            "pixel_sha256": [f"{value:x}" for value in hashes],
        }
    )


def families(count: int, rng: np.random.Generator) -> np.ndarray:
    """Hashes in families whose members differ by up to four bits."""
    hashes = rng.integers(0, 2**64, 30, dtype=np.uint64)[rng.integers(0, 30, count)]
    for _ in range(4):
        bits = np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
        hashes = hashes ^ np.where(rng.random(count) < 0.5, bits, np.uint64(0))
    return hashes


@pytest.mark.parametrize("distance", [0, 1, 2, 5, 16])
def test_the_search_finds_exactly_the_pairs_that_comparing_all_finds(distance: int) -> None:
    rng = np.random.default_rng(distance)
    index = index_of(families(200, rng), rng.integers(0, 150, 200))
    rows = list(index.itertuples())
    every = [
        ((a.perceptual_hash ^ b.perceptual_hash).bit_count(), a.image_id, b.image_id, a.split != b.split)
        for position, a in enumerate(rows)
        for b in rows[position + 1 :]
        if a.patient_id != b.patient_id
    ]
    near = sorted(pair for pair in every if pair[0] <= distance)
    found = duplicates_across_patients(index, distance)
    assert len(near) > 0
    assert (found.count, found.across_splits) == (len(near), sum(pair[3] for pair in near))
    named = [(pair.distance, pair.image_a, pair.image_b) for pair in found.nearest]
    assert named == sorted(named)
    assert set(named) <= {pair[:3] for pair in near}
    assert [pair[0] for pair in named] == [pair[0] for pair in near[:MAX_NAMED]], "the nearest are named"


@pytest.mark.trust
def test_a_placeholder_that_stands_for_a_thousand_films_is_counted_in_bounded_memory() -> None:
    index = index_of(np.zeros(1000, np.uint64), np.arange(1000))
    tracemalloc.start()
    found = duplicates_across_patients(index)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.count == 1000 * 999 // 2
    assert len(found.nearest) == MAX_NAMED
    assert peak < 4 * 2**20  # a tuple for each pair would take 50 MiB
