"""Data sets by their own files: a small module each, of pure functions from its tables to rows of our labels.csv.

What copies and counts is `cohort.land`; docs/development.md says how to add one.
"""

from penumo_assets.cohort.layouts import (
    chexpert,
    chexpert_plus,
    cohen,
    csv_table,
    folders,
    kermany,
    mimic_cxr_jpg,
    nih,
    padchest,
    rsna,
    tuberculosis,
    vindr,
)
from penumo_assets.cohort.layouts.base import Layout

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        kermany.LAYOUT,
        nih.LAYOUT,
        rsna.LAYOUT,
        chexpert.LAYOUT,
        chexpert_plus.LAYOUT,
        mimic_cxr_jpg.LAYOUT,
        padchest.LAYOUT,
        vindr.LAYOUT,
        cohen.LAYOUT,
        tuberculosis.SHENZHEN,
        tuberculosis.MONTGOMERY,
        folders.LAYOUT,
        csv_table.LAYOUT,
    )
}
