"""The content of report.json as typed records; its published JSON schema is written from them."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from penumo_assets.metrics.records import AucComparison, AucVariance, Count, Estimate, Record, Settings, Share

SCHEMA: Literal["penumo/evaluation-report/2"] = "penumo/evaluation-report/2"
SCHEMA_NAME = "report.schema.json"  # written by tools/report_schema.py
MAX_PROBLEMS = 10
DECIDABLE = 10  # test patients of a class; with fewer, no gate that looks at the class decides
ALWAYS = (
    *("accuracy", "balanced_accuracy", "recall", "specificity", "precision", "f1", "macro_f1", "micro_f1"),
    *("roc_auc", "pr_auc", "ece", "brier"),
)
Numbers = tuple[float, ...]
Estimates = dict[str, Estimate]
GateStatus = Literal["passed", "failed", "not_asked", "not_decidable"]
Verdict = Literal["model better", "not distinguishable", "shortcut better"]


class InvalidReport(ValueError):
    """A report that does not follow the schema; the message lists where and how."""


class ModelFacts(Record):
    """metadata.json of the model; what a report does not read itself is kept as it is."""

    model_config = ConfigDict(extra="allow", json_schema_serialization_defaults_required=False)

    architecture: str
    classes: tuple[str, ...]
    input_channels: int
    image_size: int
    dataset_digest: str | None = None
    hyperparameters: dict[str, Any] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _as_it_came(self, dump: SerializerFunctionWrapHandler):
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}


class Versions(Record):
    """Code, configuration and libraries behind the numbers."""

    code: str | None
    config_digest: str | None
    mlflow_run_id: str | None
    libraries: dict[str, str | None]


class Ages(Record):
    """Ages in years, of the images of which it is ``known``."""

    known: Count
    median: float | None
    first_quartile: float | None
    third_quartile: float | None


class Split(Record):
    """Who stands in a split; ``counts`` are images by class, ``groups`` images by attribute and group."""

    images: Count
    patients: Count
    counts: dict[str, Count]
    patients_by_class: dict[str, Count]
    prevalence: dict[str, Share] | None
    groups: dict[str, dict[str, Count]]
    age: Ages


class Splits(Record):
    """The three splits."""

    train: Split
    validation: Split
    test: Split


class CohortFlow(Record):
    """From the images that arrived to those that were used; ``rejected`` by reason, ``unlabelled`` of the accepted."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    accepted: Count
    rejected: dict[str, Count] = Field(default_factory=dict)
    landed: Count | None = None
    unlabelled: Count | None = None

    @model_serializer(mode="wrap")
    def _what_is_known(self, dump: SerializerFunctionWrapHandler):
        return {name: value for name, value in dump(self).items() if value is not None}


class Data(Record):
    """The training set: splits, leakage between them, and the flow from the landing zone."""

    digest: str | None
    salt: str | None
    classes: tuple[str, ...]
    positive_class: str | None
    splits: Splits
    leakage: dict[str, Count]
    flow: dict[str, CohortFlow] | None
    cohorts: tuple[str, ...]


class ReportedRule(Record):
    """How probabilities become decisions, chosen on validation; thresholds are on the positive class."""

    threshold: Share | None
    temperature: float | None
    source: str
    calibrated_threshold: Share | None


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
    """Observed frequency by predicted probability, null in empty bins; slope and intercept of the recalibration."""

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
    temperature: float | None
    calibrated: Reliability | None
    uncalibrated: Reliability | None
    chance: CalibrationByChance | None


class NetBenefit(Record):
    """Decision curve of test: net benefit per image by threshold probability; treating no one has 0."""

    thresholds: Numbers
    model: Numbers
    treat_all: Numbers


class ModelComparison(Record):
    """This model and the reference model on the test images that both scored."""

    images: Count
    result: AucComparison | None
    reason: str | None


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
    """One shortcut baseline beside the model, on the same test images."""

    cohort: str
    shortcut: str
    title: str
    images: Count
    shortcut_auc: Estimate
    model_auc: Estimate
    comparison: AucComparison | None
    verdict: Verdict | None


class Shortcuts(Record):
    """The shortcut baselines, or the reason why there are none."""

    rows: tuple[ShortcutRow, ...]
    reason: str | None


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


class Failure(Record):
    """A confident wrong decision: ``row`` of the test index, ``confidence`` the wrong class's probability."""

    row: Count
    image_id: str
    cohort: str
    truth: str
    called: str
    confidence: Share


class GateResult(Record):
    """One gate: the limit, what was found, and what follows.

    ``not_asked``: the gate is off, the value is shown all the same. ``not_decidable``: the test images are too few, or
    the value is undefined: a person has to decide.
    """

    gate: str
    status: GateStatus
    limit: float | None
    value: float | None
    reason: str

    @property
    def passed(self) -> bool:
        """Whether it was asked for and holds."""
        return self.status == "passed"

    @property
    def holds_up(self) -> bool:
        """Whether it was asked for and does not hold, or cannot be decided."""
        return self.status in ("failed", "not_decidable")


class ChecklistRow(Record):
    """An item of CLAIM and the section that answers it, or the reason why none does."""

    item: Annotated[int, Field(ge=1)] | None
    topic: str
    stard: str
    section: str | None
    reason: str | None


class Report(Record):
    """Written by penumo_assets.jobs.evaluate. Numbers that are undefined are null with a reason."""

    model_config = ConfigDict(title="Evaluation report of a chest X-ray classifier")

    schema_name: Literal["penumo/evaluation-report/2"] = Field(alias="schema")
    created: str = Field(description="ISO 8601, UTC.")
    phantoms: bool = Field(description="True when the images were drawn by a program: nothing here is about patients.")
    disclaimer: str
    model: ModelFacts
    versions: Versions
    settings: Settings
    data: Data
    decision_rule: ReportedRule
    performance: Performance
    per_class: dict[str, Estimates]
    within_cohorts_roc_auc: Estimate
    confusion_matrix: Confusions
    curves: Curves
    operating_points: tuple[OperatingPoint, ...]
    calibration: Calibration
    decision_curve: NetBenefit | None
    delong: AucVariance | None
    comparison: ModelComparison | None
    subgroups: tuple[Subgroup, ...]
    shortcuts: Shortcuts
    segmentation: Segmentation
    failures: tuple[Failure, ...]
    gates: tuple[GateResult, ...]
    checklist: tuple[ChecklistRow, ...]

    def as_json(self) -> dict[str, Any]:
        """What ``json.dumps`` takes."""
        return self.model_dump(mode="json", by_alias=True)


def read_report(text: str | bytes) -> Report:
    """The content of a report.json.

    Raises
    ------
    InvalidReport
        If it is not JSON or does not follow the schema: up to ten problems, each with its place in the document.
    """
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'/'.join(map(str, item['loc'])) or '(top)'}: {item['msg'][:200]}" for item in found]
    more = f" and {len(lines) - MAX_PROBLEMS} more" if len(lines) > MAX_PROBLEMS else ""
    raise InvalidReport("report.json does not follow its schema: " + "; ".join(lines[:MAX_PROBLEMS]) + more)


def schema_text() -> str:
    """The JSON schema (draft 2020-12) of report.json, as it is published in ``SCHEMA_NAME``."""
    schema = Report.model_json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA}
    return json.dumps(head | schema, indent=1) + "\n"
