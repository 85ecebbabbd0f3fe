"""Has the data moved away from what a model was trained on? Population stability, with a null to judge it by."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special  # a third of what importing scipy.stats takes, and that in every cohort's run

BINS = 10
CONFIDENCE = 0.99
_FLOOR = 0.5  # images added to an empty bin, so that its logarithm is finite


@dataclass(frozen=True)
class Stability:
    """A population stability index.

    Two samples of these sizes from one distribution have the index ``expected`` on average and stay below
    ``chance`` in 99 of 100 cases: below it, no index is a sign of drift, however large it looks.
    """

    index: float
    expected: float
    chance: float
    reference_images: int
    images: int


def population_stability(reference: np.ndarray, current: np.ndarray, bins: int = BINS) -> Stability | None:
    """PSI = sum_b (p_b - q_b) ln(p_b / q_b) over bins of the reference (Siddiqi 2006, ch. 10).

    A value that fills a bin of the reference alone, and each of at most ``bins`` distinct values, has a bin of its own;
    the rest have quantile bins. The customary reading is below 0.1 stable, 0.1 to 0.25 moved, above 0.25 another
    population. Without drift it is distributed as (1/n + 1/m) chi-square with bins - 1 degrees of freedom (Yurdakul &
    Naranjo 2020, doi:10.21314/JRMV.2020.227), which for small cohorts alone exceeds 0.25.

    Parameters
    ----------
    reference, current : (n,) and (m,) float arrays; NaN (not known) is left out.

    Returns
    -------
    Stability, or None if either has no known value.
    """
    reference, current = (np.asarray(values, np.float64) for values in (reference, current))
    reference, current = reference[np.isfinite(reference)], current[np.isfinite(current)]
    if not len(reference) or not len(current):
        return None
    p, q = _shares(reference, current, _edges(reference, bins))
    index = float(((p - q) * np.log(p / q)).sum())
    scale, freedom = 1 / len(reference) + 1 / len(current), len(p) - 1
    chance = float(special.chdtri(freedom, 1 - CONFIDENCE) * scale) if freedom else 0.0
    return Stability(index, freedom * scale, chance, len(reference), len(current))


def drift_rows(
    reference: Mapping[str, np.ndarray], current: Mapping[str, np.ndarray], limit: float
) -> list[dict[str, Any]]:
    """One row per feature that both sides have: its stability, and whether it ``moved``.

    A feature moved when its index is above ``limit`` and above what chance alone explains. Where only one side knows
    the feature's values, ``index`` and ``moved`` are None; where neither does, there is no row.
    """
    rows: list[dict[str, Any]] = []
    for name in reference:
        if name not in current or not any(np.isfinite(side[name]).any() for side in (reference, current)):
            continue
        found = population_stability(reference[name], current[name])
        values = asdict(found) if found else dict.fromkeys(Stability.__dataclass_fields__)
        rows.append({"feature": name, **values, "moved": found and found.index > max(limit, found.chance)})
    return rows


def image_statistics(
    width: np.ndarray, height: np.ndarray, size: np.ndarray, mean_intensity: np.ndarray
) -> dict[str, np.ndarray]:
    """What is compared of n images beside their predictions: (n,) float64 each, NaN where not known.

    Width and height in pixels and the file's size in bytes are those of the image that landed.
    """
    width, height, size, mean_intensity = (
        np.asarray(values, np.float64) for values in (width, height, size, mean_intensity)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "mean_intensity": mean_intensity,
            "aspect_ratio": width / height,
            "megapixels": width * height / 1e6,
            "file_bytes": size,
        }


def _edges(reference: np.ndarray, bins: int) -> np.ndarray:
    """Rising lower ends of all bins but the first."""
    values, counts = np.unique(reference, return_counts=True)
    alone = (counts * bins >= len(reference)) | (len(values) <= bins)
    spikes, rest = values[alone], reference[np.isin(reference, values[~alone])]
    parts = round(bins * len(rest) / len(reference))
    quantiles = np.quantile(rest, np.linspace(0, 1, parts + 1)[1:-1]) if parts > 1 else np.empty(0)
    return np.unique(np.concatenate([quantiles, spikes, np.nextafter(spikes, np.inf)]))


def _shares(reference: np.ndarray, current: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    """The share of each side in every bin that one of them reaches."""
    counts = np.array(
        [
            np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
            for values in (reference, current)
        ]
    )
    floored = np.maximum(counts[:, counts.any(axis=0)], _FLOOR)
    return list(floored / floored.sum(axis=1, keepdims=True))
