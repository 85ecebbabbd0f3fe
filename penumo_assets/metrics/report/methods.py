"""How the data were made, in the report's sentences: preparation as it was set, exclusions, and the split."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.prepare import Deidentify, EnhanceConfig, OnBadMask, PrepareConfig
from penumo_assets.metrics.report.content import CohortFlow, Report

_IDS = {
    Deidentify.dicom: "patient ids of DICOM films replaced by keyed hashes, others as labels.csv has them",
    Deidentify.always: "patient ids replaced by keyed hashes",
    Deidentify.never: "patient ids as they landed",
}
_SPLIT = {
    "hash": "A hash of the patient id decides the split: adding data moves nobody, and anyone can recompute it.",
    "stratified": "The patients of each class, in the order of a hash of their ids, are cut into the splits, so that "
    "each has its share of every class; adding data can move patients.",
    "column": "The data sets' own tables declare the split; where they are silent, a hash of the patient id decides.",
}


def preparation(prepared_with: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Cohorts that were prepared alike, and how: what was switched on, in the order in which it was done."""
    alike: dict[str, list[str]] = defaultdict(list)
    for cohort, settings in prepared_with.items():
        try:
            steps = _steps(PrepareConfig.parse(settings))
        except ConfigError:
            steps = "by settings of an earlier version, which this one does not read"
        alike[steps].append(cohort)
    return [(", ".join(cohorts), steps) for steps, cohorts in alike.items()]


def partitioning(report: Report) -> str:
    """What decided who trains, validates and tests."""
    found = _SPLIT.get(report.data.split or "", "What decided the split, beside the salt, was not recorded.")
    if report.external:
        found += f" Cohort {report.external} takes the place of the test split."
    return found


def flow_notes(counts: CohortFlow) -> list[str]:
    """Exclusions by class, and masks and rows of the table that were not used."""
    notes = [
        f"{name}: {flow.rejected} of {flow.landed} excluded"
        + (f" ({100 * flow.rejected / flow.landed:.1f}\u00a0%)" if flow.landed else "")
        for name, flow in (counts.classes or {}).items()
    ]
    if counts.whole_image_masks:
        notes.append(f"no plausible lungs, so the whole image was used: {counts.whole_image_masks}")
    if counts.unpaired_masks:
        notes.append(f"ground-truth masks without a film of their own, not used: {counts.unpaired_masks}")
    if counts.missing_files:
        notes.append(f"rows of labels.csv whose file did not land: {counts.missing_files}")
    return notes


def _steps(config: PrepareConfig) -> str:
    bad = "rejects the image" if config.segment.on_bad_mask is OnBadMask.reject else "is replaced by the whole image"
    lungs = f"lungs outlined by {config.segment.backend.value}, where an implausible outline {bad}"
    return "; ".join([_IDS[config.decode.deidentify], lungs, *_enhanced(config.enhance)]) + "."


def _enhanced(config: EnhanceConfig) -> list[str]:
    steps = []
    if config.crop_to_lungs:
        steps.append(f"cropped to the lungs with a margin of {100 * config.crop_margin:g}\u00a0%")
    shape = "widened to a square" if config.keep_aspect else "squashed to a square"
    steps.append(shape if config.crop_to_lungs else f"not cropped, {shape}")
    if config.apply_mask:
        steps.append("blanked outside the lungs")
    if config.clahe.enabled:
        steps.append(f"CLAHE (limit {config.clahe.clip_limit:g}, {config.clahe.tile_grid} tiles a side)")
    if config.gaussian_blur.enabled:
        steps.append(f"Gaussian blur ({config.gaussian_blur.kernel_size} pixels, {config.gaussian_blur.sigma:g})")
    if config.min_max.enabled:
        ends = f"{config.min_max.low_percentile:g} to {config.min_max.high_percentile:g}"
        steps.append(f"percentiles {ends} stretched over the gray levels")
    if config.sharpen.enabled:
        steps.append(f"unsharp mask ({config.sharpen.amount:g})")
    return steps
