"""Phantom chest radiographs: synthetic images for the demo and the tests, no patient behind any of them."""

from penumo_assets.phantoms.cohort import write_cohort
from penumo_assets.phantoms.radiograph import draw_phantom

__all__ = ["draw_phantom", "write_cohort"]
