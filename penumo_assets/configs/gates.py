"""How a classifier is judged (``gates`` of ``train_config.yaml``)."""

from pydantic import Field

from penumo_assets.configs.base import StrictModel


class Gates(StrictModel):
    """What a report must show before its model may become the champion (`evaluation_report`); null: not asked for."""

    min_roc_auc_low: float | None = Field(
        ge=0, le=1, description="Floor for the lower confidence bound of the test ROC-AUC."
    )
    min_sensitivity: float | None = Field(ge=0, le=1, description="Floor for the test sensitivity at the threshold.")
    min_specificity: float | None = Field(ge=0, le=1, description="Floor for the test specificity at the threshold.")
    max_ece: float | None = Field(
        ge=0, le=1, description="Ceiling for the expected calibration error on test, after calibration."
    )
    min_subgroup_roc_auc: float | None = Field(
        ge=0, le=1, description="Floor below which no subgroup's test ROC-AUC lies beyond chance."
    )
    require_no_leakage: bool = Field(description="No patient and no image stands in two splits.")
    beat_shortcuts: bool = Field(
        description="The model is significantly better than every shortcut of the report: aspect "
        "ratio, intensity, file size, view, age, sex, what the preparation left beside the lungs."
    )
