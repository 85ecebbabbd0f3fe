"""What a segmenter saw on films beside their lungs: whether it is sure of them, and how the films lie.

The two looks at one film agree on where the lungs are; on a photograph, a page or another body part they seldom do.
And the network's deepest features tell an upright chest from a turned one. Both are measured for the bundled weights
(docs/model_card_lung_unet.md) and say nothing with others.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

UPRIGHT = Path(__file__).parents[1] / "models" / "weights" / "lung_unet_upright.json"


@dataclass(frozen=True)
class FilmLook:
    """One film as the segmenter saw it.

    Attributes
    ----------
    probability : ndarray
        (512, 512) float32: that a pixel is lung.
    agreement : float or None
        Dice of the two looks' lungs, 0..1; ``None`` where it says nothing.
    flags : tuple of str
        ``looks_inverted``, ``looks_rotated``: by a quarter or half a turn.
    """

    probability: np.ndarray
    agreement: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looks:
    """A batch of N gray pictures as the segmenter saw them.

    Attributes
    ----------
    probabilities : ndarray
        (N, 512, 512) float32.
    agreement : ndarray
        (N,) float32, NaN where it says nothing.
    inverted, rotated : ndarray
        (N,) bool.
    """

    probabilities: np.ndarray
    agreement: np.ndarray
    inverted: np.ndarray
    rotated: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray) -> "Looks":
        """Probabilities of which nothing else is known."""
        count = len(probabilities)
        unknown = np.full(count, np.nan, np.float32)
        return cls(probabilities, unknown, np.zeros(count, bool), np.zeros(count, bool))

    def film(self, planes: slice = slice(None)) -> FilmLook:
        """The film that is in some of the pictures, its colour planes: probabilities and agreement are averaged."""
        agreement = float(self.agreement[planes].mean())
        found = {"looks_inverted": self.inverted[planes].any(), "looks_rotated": self.rotated[planes].any()}
        return FilmLook(
            probability=self.probabilities[planes].mean(axis=0),
            agreement=None if np.isnan(agreement) else agreement,
            flags=tuple(flag for flag, seen in found.items() if seen),
        )


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Dice of where two (N, h, w) logits are positive: (N,) float64, 0 where neither is anywhere."""
    one, other = first > 0, second > 0
    both, each = (one & other).sum((1, 2)), one.sum((1, 2)) + other.sum((1, 2))
    return 2 * both / np.maximum(each, 1)


@dataclass(frozen=True)
class Upright:
    """A linear judge of the deepest features, averaged over the picture's four quarters."""

    segmenter: str
    weights: np.ndarray
    bias: float

    def rotated(self, deepest: np.ndarray) -> np.ndarray:
        """(N, C, h, w) features -> (N,) bool: whether a chest is turned by a quarter or half a turn."""
        return quarters(deepest) @ self.weights + self.bias > 0


def quarters(deepest: np.ndarray) -> np.ndarray:
    """(N, C, h, w) features -> (N, 4 C): their means over the four quarters of the picture; h and w are even."""
    count, channels, height, width = deepest.shape
    return deepest.reshape(count, channels, 2, height // 2, 2, width // 2).mean((3, 5)).reshape(count, -1)


@cache
def bundled_upright() -> Upright:
    """The judge that belongs to the bundled weights; ``segmenter`` is their SHA-256."""
    content = json.loads(UPRIGHT.read_text(encoding="utf-8"))
    return Upright(content["segmenter_sha256"], np.array(content["weights"], np.float32), content["bias"])
