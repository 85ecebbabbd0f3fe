"""What only the orchestrator and the owner of a study know of an evaluation: the content of context.json."""

from typing import Any

from pydantic import Field

from penumo_assets.configs.base import StrictModel
from penumo_assets.configs.train import Gates
from penumo_assets.metrics.report.content import CohortFlow


class Study(StrictModel):
    """Statements that only the owner of the study can make, plain text."""

    acquisition: str | None = None
    aims: str | None = None
    annotators: str | None = None
    availability: str | None = None
    design: str | None = None
    external_test: str | None = None
    funding: str | None = None
    protocol: str | None = None
    rater_variability: str | None = None
    reference_rationale: str | None = None
    reference_standard: str | None = None
    registration: str | None = None
    sample_size: str | None = None


class DiceRow(StrictModel):
    """The overlap of one image's lung mask with its ground truth."""

    cohort: str
    patient_id: str
    image_id: str
    dice: float
    iou: float


class Context(Study):
    """``flow`` by cohort, ``dice`` by image, versions, and the gates that the report is judged by.

    ``external`` is the cohort that takes the place of the test split, of which no image trained the model.
    ``test_looks``: how many models were measured on the test images with ``test_digest``, this one included.
    """

    phantoms: bool = False
    external: str | None = None
    flow: dict[str, CohortFlow] | None = None
    dice: tuple[DiceRow, ...] = ()
    gates: Gates = Field(default_factory=Gates.defaults)
    prepared_with: dict[str, Any] = Field(default_factory=dict)
    code_version: str | None = None
    config_digest: str | None = None
    mlflow_run_id: str | None = None
    test_digest: str | None = None
    test_looks: int | None = Field(default=None, ge=1)
