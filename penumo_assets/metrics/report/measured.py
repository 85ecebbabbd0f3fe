"""What a report has measured, as typed records: metrics, curves, calibration, subgroups, shortcuts, masks, failures."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from penumo_assets.metrics.records import AucComparison, Count, Estimate, Record, Share

ALWAYS = (
    *("accuracy", "balanced_accuracy", "recall", "specificity", "precision", "f1", "macro_f1", "micro_f1"),
    *("roc_auc", "pr_auc", "ece", "brier"),
)
Numbers = tuple[float, ...]
Estimates = dict[str, Estimate]
Verdict = Literal["model better", "not distinguishable", "shortcut better"]


def _holds_what_is_always_there(metrics: Estimates) -> Estimates:
    if missing := [name for name in ALWAYS if name not in metrics]:
        raise ValueError(f"missing {', '.join(missing)}")
    return metrics


PerformanceMetrics = Annotated[
    Estimates, AfterValidator(_holds_what_is_always_there), Field(json_schema_extra={"required": list(ALWAYS)})
]


class Performance(Record):
    """All metrics of both splits that are scored.

    precision, recall, f1 and specificity are the positive class's, or means over the classes without one.
    """

    validation: PerformanceMetrics
    test: PerformanceMetrics


class Confusion(Record):
    """Rows: truth. Columns: decision."""

    labels: tuple[str, ...]
    counts: tuple[tuple[Count, ...], ...]


class Confusions(Record):
    """The decisions of both splits that are scored."""

    validation: Confusion
    test: Confusion


class RocCurve(Record):
    """A ROC curve; its band stands over the false positive rates ``grid``."""

    false_positive_rate: Numbers
    true_positive_rate: Numbers
    grid: Numbers
    low: Numbers | None
    high: Numbers | None


class PrCurve(Record):
    """A precision-recall curve."""

    recall: Numbers
    precision: Numbers


class Curves(Record):
    """Both curves of test, or the reason why there are none."""

    roc: RocCurve | None
    pr: PrCurve | None
    reason: str | None


class OperatingPoint(Record):
    """A threshold that was chosen on validation, and what it reaches on test."""

    name: str
    threshold: Share | None
    metrics: Estimates | None
    reason: str | None


class Reliability(Record):
    """Observed frequency by predicted probability, null in empty bins.

    ``slope`` is that of the recalibration, ``intercept`` calibration in the large: its intercept with the slope at 1.
    """

    edges: Numbers
    count: tuple[Count, ...]
    mean_predicted: tuple[float | None, ...]
    observed: tuple[float | None, ...]
    slope: float | None
    intercept: float | None


class CalibrationByChance(Record):
    """The calibration error that perfectly calibrated probabilities of the same images have: mean and 95 % quantile.

    ``p_value``: how often it is at least as large as the one found.
    """

    expected: Share
    high: Share
    p_value: Share


class Calibration(Record):
    """Do the probabilities of ``event`` on test mean what they say?"""

    event: str
    bins: Annotated[int, Field(ge=1)]
    calibrated: Reliability | None
    uncalibrated: Reliability | None
    chance: CalibrationByChance | None


class NetBenefit(Record):
    """Decision curve of test: net benefit per image by threshold probability; treating no one has 0."""

    thresholds: Numbers
    model: Numbers
    treat_all: Numbers


class Selective(Record):
    """Answers on test when the least sure images get none: share of wrong ones (``risk``) by share answered.

    ``asked`` is the coverage that was asked for and set on validation, ``reached`` what it is on test, and ``metrics``
    are those of the images with an answer. All are null while every image gets one.
    """

    coverage: Numbers
    risk: Numbers
    asked: Share | None
    reached: Estimate | None
    metrics: Estimates | None


class ModelComparison(Record):
    """This model and the reference model on the test images that both scored."""

    images: Count
    result: AucComparison | None
    reason: str | None


class OneAgainstRest(Record):
    """One class against all others on test: what a report of two classes says of the positive one."""

    name: str
    prevalence: Share | None
    roc_auc: Estimate
    pr_auc: Estimate
    curves: Curves
    operating_points: tuple[OperatingPoint, ...]
    calibration: Calibration
    decision_curve: NetBenefit | None
    comparison: ModelComparison | None


class Subgroup(Record):
    """Performance on the test images of one group."""

    attribute: str
    group: str
    images: Count
    patients: Count
    counts: dict[str, Count]
    metrics: Estimates
    roc_auc_upper: Share | None = Field(
        description="Upper bound of the ROC-AUC that holds for all groups together in 95 of 100 reports (Bonferroni)."
    )


class ShortcutRow(Record):
    """One shortcut baseline beside the model, on the same test images; both look for the class ``finding``."""

    finding: str
    cohort: str
    shortcut: str
    title: str
    images: Count
    shortcut_auc: Estimate
    model_auc: Estimate
    comparison: AucComparison | None
    verdict: Verdict | None


class Shortcuts(Record):
    """The shortcut baselines."""

    rows: tuple[ShortcutRow, ...]


class Overlaps(Record):
    """Mean overlap with the ground-truth lung masks."""

    images: Count
    dice: Estimate
    iou: Estimate


class CohortOverlaps(Overlaps):
    """The same within one cohort."""

    cohort: str


class Segmentation(Overlaps):
    """Mean overlap over all images with a ground-truth lung mask, and by cohort."""

    cohorts: tuple[CohortOverlaps, ...]


class InBoxes(Record):
    """Grad-CAM held to the boxes that readers drew: as in `Explanation`; ``even`` is an even map's energy."""

    images: Count
    energy: Estimate
    pointing: Estimate
    even: Share


class Explanation(Record):
    """Grad-CAM of test images for their own finding, held to the lungs; see ``metrics.grad_cam.inside``.

    ``images`` have a map that is not empty, of those ``looked_at``. ``lungs`` is an even map's energy.
    """

    looked_at: Count
    images: Count
    grid: tuple[Count, Count]
    energy: Estimate
    pointing: Estimate
    lungs: Share | None
    boxes: InBoxes | None = Field(default=None, description="Null where no reader drew a box on these images.")


class Failure(Record):
    """A confident wrong decision: ``row`` of the test index, ``confidence`` the wrong class's probability."""

    row: Count
    image_id: str
    cohort: str
    truth: str
    called: str
    confidence: Share
