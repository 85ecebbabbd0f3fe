"""How tensors are split and packed (``dataset`` of ``train_config.yaml``)."""

from enum import StrEnum

from pydantic import Field, model_validator

from penumo_assets.configs.base import StrictModel


class SplitRule(StrEnum):
    """What decides whether a patient trains, validates or tests."""

    hash = "hash"
    stratified = "stratified"
    column = "column"


class DatasetConfig(StrictModel):
    """From NPZ tensors to the packed training set (`training_set`)."""

    salt: str = Field(
        min_length=1,
        max_length=100,
        description="Enters the hash that decides a patient's split. Changing it moves every patient.",
    )
    split: SplitRule = Field(
        description="hash: the hash of the patient decides, for every cohort. stratified: the same hash divides the "
        "patients of each class by themselves, so that a small set has every class in every split; new patients can "
        "move a few others, so models must be trained anew. column: what labels.csv says in its "
        "column split, as `penumo land --official-split` writes it; the hash where it says nothing.",
    )
    validation_fraction: float = Field(gt=0, lt=1, description="Expected share of patients for validation.")
    test_fraction: float = Field(gt=0, lt=1, description="Expected share of patients for test.")
    external: list[str] = Field(
        description="Cohorts that never train, validate or test a model: external_validation judges them by themselves."
    )
    classes: list[str] = Field(
        min_length=2,
        description="The classes that a model tells apart, in their order; of two, the positive one comes last. Any "
        "other label of a cohort is refused by name.",
    )
    map: dict[str, str] = Field(
        description="Labels of the cohorts and the class that each stands for, such as bacterial: pneumonia."
    )
    positive_class: str = Field(min_length=1, description="With two classes, the one whose probability is reported.")
    shard_images: int = Field(ge=1, le=100_000, description="Images per shard file, about 0.2 MB each.")

    @model_validator(mode="after")
    def _leaves_some_to_train_on(self) -> "DatasetConfig":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must be below 1, or no patient trains")
        return self

    @model_validator(mode="after")
    def _classes_are_declared(self) -> "DatasetConfig":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes names one twice")
        if len(self.classes) == 2 and self.positive_class not in self.classes:
            raise ValueError(f"positive_class must be one of the classes {', '.join(self.classes)}")
        if strangers := sorted(set(self.map.values()) - set(self.classes)):
            raise ValueError(f"map leads to {', '.join(strangers)}, which classes does not hold")
        return self

    @property
    def ordered_classes(self) -> list[str]:
        """As declared; of exactly two, the positive one last."""
        if len(self.classes) == 2:
            return sorted(self.classes, key=lambda name: name == self.positive_class)
        return list(self.classes)
