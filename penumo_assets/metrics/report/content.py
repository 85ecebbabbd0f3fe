"""The content of report.json as typed records; its published JSON schema is written from them.

What was measured is in `measured.py`; here is the rest: provenance, data, gates, checklist, and the whole.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from penumo_assets.metrics.records import AucVariance, Count, Estimate, Record, Settings, Share
from penumo_assets.metrics.report.measured import (
    Calibration,
    Confusions,
    Curves,
    Estimates,
    Explanation,
    Failure,
    ModelComparison,
    NetBenefit,
    Numbers,
    OneAgainstRest,
    OperatingPoint,
    Performance,
    Segmentation,
    Selective,
    Shortcuts,
    Subgroup,
)

SCHEMA: Literal["penumo/evaluation-report/3"] = "penumo/evaluation-report/3"
SCHEMA_NAME = "report.schema.json"  # written by tools/report_schema.py
MAX_PROBLEMS = 10
DECIDABLE = 10  # test patients of a class; with fewer, no gate that looks at the class decides
GateStatus = Literal["passed", "failed", "not_asked", "not_decidable"]


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


class ClassFlow(Record):
    """The films of one class that landed, and what became of them."""

    landed: Count
    rejected: Count
    accepted: Count


class CohortFlow(Record):
    """From the images that arrived to those that were used.

    ``rejected`` by reason; of the accepted ``unlabelled``, and labelled ``without_patient``. ``whole_image_masks``: no
    plausible lungs, so the whole image was used. Not among the images: ``unpaired_masks``, and rows of labels.csv whose
    files are missing.
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    accepted: Count
    rejected: dict[str, Count] = Field(default_factory=dict)
    landed: Count | None = None
    unlabelled: Count | None = None
    without_patient: Count | None = None
    whole_image_masks: Count | None = None
    unpaired_masks: Count | None = None
    missing_files: Count | None = None
    classes: dict[str, ClassFlow] | None = None

    @model_serializer(mode="wrap")
    def _what_is_known(self, dump: SerializerFunctionWrapHandler):
        return {name: value for name, value in dump(self).items() if value is not None}


class Data(Record):
    """The training set: splits, leakage between them, and the flow from the landing zone."""

    digest: str | None
    salt: str | None
    split: str | None = Field(default=None, description="What decided the split: hash, stratified or column.")
    classes: tuple[str, ...]
    positive_class: str | None
    splits: Splits
    leakage: dict[str, Count]
    flow: dict[str, CohortFlow] | None
    test_digest: str | None
    test_looks: Count | None = Field(description="Models measured on these test images, this one included.")
    cohorts: tuple[str, ...]


class ReportedRule(Record):
    """How probabilities become decisions, chosen on validation; thresholds are on the positive class.

    Calibrated probabilities are softmax(logits / temperature + offsets), ``offsets`` one per class.
    """

    threshold: Share | None
    temperature: float | None
    offsets: Numbers
    source: str
    calibrated_threshold: Share | None
    undecided_below: float | None = Field(description="Confidence below which an image is not decided; null: all are.")


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

    schema_name: Literal["penumo/evaluation-report/3"] = Field(alias="schema")
    created: str = Field(description="ISO 8601, UTC.")
    phantoms: bool = Field(description="True when the images were drawn by a program: nothing here is about patients.")
    external: str | None = Field(
        description="The cohort that is judged instead of the test split: no image of it trained, chose or calibrated."
    )
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
    selective: Selective
    delong: AucVariance | None
    comparison: ModelComparison | None
    one_against_rest: tuple[OneAgainstRest, ...] = Field(description="Of several classes each; empty for two.")
    subgroups: tuple[Subgroup, ...]
    shortcuts: Shortcuts
    segmentation: Segmentation
    explanation: Explanation | None = Field(description="Null where the network has no convolution, or no image.")
    failures: tuple[Failure, ...]
    gates: tuple[GateResult, ...]
    checklist: tuple[ChecklistRow, ...]

    @property
    def parts(self) -> tuple[OneAgainstRest, ...]:
        """Each of several classes against the rest, or the positive one of two."""
        name = self.data.positive_class
        if name is None:
            return self.one_against_rest
        known: dict[str, Any] = {
            "name": name,
            "prevalence": (self.data.splits.test.prevalence or {}).get(name),
            **{area: self.performance.test[area] for area in ("roc_auc", "pr_auc")},
        }
        same = {field: getattr(self, field) for field in OneAgainstRest.model_fields if field not in known}
        return (OneAgainstRest(**known, **same),)

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
