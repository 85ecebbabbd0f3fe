"""How images are split and packed (``dataset``), a classifier is trained (``train``) and judged (``gates``).

The defaults stand in ``train_config.yaml``, recipes by name in ``train_presets.yaml``. Every field of ``TrainConfig``
is a hyperparameter of ``jobs/train`` by the same name, with dashes: ``batch_size`` is ``--batch-size``, and a nested
field takes its group's name in front: ``augment.rotation`` is ``--augment-rotation``.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from penumo_assets.configs.base import FOLDER, StrictModel, defaults_from, read_yaml

NO_WEIGHTS = "none"  # of `pretrained`: a random start
NO_PRESET = "none"  # of `preset`: the defaults
PRESETS: Mapping[str, Mapping[str, Any]] = read_yaml(FOLDER / "train_presets.yaml")
PICKLES = (".pth", ".pt", ".bin", ".pkl", ".ckpt")


class Architecture(StrEnum):
    """The networks that can be trained: each name is a module of ``models/``."""

    resnet34 = "resnet34"
    resnet50 = "resnet50"


class Optimizer(StrEnum):
    """How a gradient becomes a step."""

    adamw = "adamw"
    sgd = "sgd"


class Scheduler(StrEnum):
    """How the learning rate falls after the warm-up."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"


class StoppingMetric(StrEnum):
    """What early stopping watches on the validation split."""

    roc_auc = "roc_auc"
    loss = "loss"


class ClassWeighting(StrEnum):
    """What an image of a rare class counts for."""

    balanced = "balanced"
    none = "none"


class MixedPrecision(StrEnum):
    """In which number format the network computes."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


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


class AugmentConfig(StrictModel):
    """Random changes to training images, drawn anew for every image and epoch."""

    probability: float = Field(ge=0, le=1, description="Share of training images that are changed at all.")
    rotation: float = Field(ge=0, le=45, description="Largest rotation either way, in degrees.")
    shift: float = Field(ge=0, le=0.5, description="Largest shift in either axis, as a share of the side.")
    scale: float = Field(ge=0, lt=1, description="Largest change of size: 0.12 is 88 % to 112 %.")
    aspect: float = Field(
        ge=0,
        lt=1,
        description="Largest change of width against height: makes the aspect ratio, which differs between "
        "hospitals rather than diseases, a poor guide.",
    )
    contrast: float = Field(ge=0, lt=1, description="Largest change of contrast around the image's mean.")
    brightness: float = Field(ge=0, lt=1, description="Largest change of brightness, as a share of the range.")
    gamma: float = Field(ge=0, lt=1, description="Largest change of gamma, on a logarithmic scale.")
    erasing: float = Field(ge=0, le=1, description="Probability that a rectangle (2 to 15 %) is erased.")
    horizontal_flip: float = Field(
        ge=0,
        le=1,
        description="Probability of a left-right flip. 0 because a flipped chest has its heart on the right "
        "(dextrocardia) and its side marker reversed: no such image arrives at inference.",
    )


def _merged(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``recipe`` with what is ``given`` in its place, at every depth."""
    both = {
        name: _merged(value, given[name])
        for name, value in recipe.items()
        if isinstance(value, dict) and isinstance(given.get(name), dict)
    }
    return {**recipe, **given, **both}


class TrainConfig(StrictModel):
    """Hyperparameters of one training job (`trained_model`): as given, else as the preset says, else the default."""

    preset: str = Field(
        description="A recipe of train_presets.yaml: quick is a first training without a GPU. What is set beside it "
        "wins. none: the defaults."
    )
    epochs: int = Field(ge=1, le=10_000, description="Most passes over the training split.")
    batch_size: int = Field(ge=2, le=65_536, description="Images per optimizer step, over all processes together.")
    resolution: int = Field(
        ge=32,
        le=224,
        description="Side in pixels that the network sees; below 224 images are shrunk on the device.",
    )
    input_channels: int = Field(ge=3, le=4, description="3: the image. 4: the image and its lung mask.")
    pretrained: str = Field(
        min_length=1,
        max_length=1024,
        description="none, imagenet (needs a network), or the URI of a state dict (.safetensors).",
    )
    optimizer: Optimizer = Field(description="adamw (decoupled weight decay) or sgd (Nesterov).")
    learning_rate: float = Field(gt=0, le=10, description="Learning rate after the warm-up.")
    backbone_lr_factor: float = Field(
        gt=0,
        le=1,
        description="With pretrained weights, what all layers but the last learn at, as a share of learning_rate: they "
        "know much already, and the last layer starts at random. Without, all learn at learning_rate.",
    )
    weight_decay: float = Field(ge=0, le=1, description="Weight decay; never on biases or batch norm.")
    scheduler: Scheduler = Field(description="How the learning rate falls to 0 over the epochs; constant: it does not.")
    warmup_epochs: int = Field(ge=0, le=1000, description="Epochs over which the learning rate rises from 0.")
    gradient_clip: float = Field(ge=0, description="Largest norm of the gradient; 0 switches clipping off.")
    early_stopping_patience: int = Field(
        ge=0, le=10_000, description="Epochs without improvement before training stops; 0 never stops early."
    )
    early_stopping_metric: StoppingMetric = Field(
        description="What is watched on validation, and by which the best epoch is chosen."
    )
    class_weighting: ClassWeighting = Field(
        description="balanced: each class counts the same in the loss, however rare."
    )
    label_smoothing: float = Field(ge=0, lt=1, description="Share of the target spread over all classes.")
    mixup: float = Field(ge=0, le=10, description="Alpha of mixup's Beta distribution; 0 switches mixup off.")
    freeze_epochs: int = Field(ge=0, le=10_000, description="First epochs in which only the last layer learns.")
    ema_decay: float = Field(
        ge=0, lt=1, description="Decay per step of the weights' moving average, which is what is kept; 0: off."
    )
    amp: MixedPrecision = Field(
        description="auto: bf16 where the GPU or CPU computes it, else fp16 on a GPU and fp32 on a CPU. "
        "Or fp32, bf16, fp16.",
    )
    compile: bool = Field(description="Compile the network with torch.compile: slow start, quicker steps.")
    sync_batch_norm: bool = Field(description="With several processes, batch norm sees the whole batch.")
    num_workers: int = Field(ge=0, le=64, description="Threads that read batches ahead; 0 reads when asked.")
    checkpoint_steps: int = Field(
        ge=0, description="Also write a checkpoint every so many steps; 0: after each epoch only."
    )
    seed: int = Field(ge=0, le=2**31 - 1, description="Seed of the weights, the order and the augmentation.")
    augment: AugmentConfig = Field(description="Random changes to training images.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if isinstance(values, dict):
            name = values.get("preset", cls.yaml_defaults.get("preset"))
            values = _merged(PRESETS.get(str(name), {}), values)
        return super()._fill_in(values)  # type: ignore[operator]  # pydantic leaves a class method

    @field_validator("preset")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (NO_PRESET, *PRESETS):
            raise ValueError(f"must be {NO_PRESET} or one of the presets: {', '.join(PRESETS)}")
        return value

    @field_validator("pretrained")
    @classmethod
    def _no_pickle(cls, value: str) -> str:
        # Refused here, before a job is paid for that would refuse it.
        if value.endswith(PICKLES):
            raise ValueError("must be none, imagenet or a .safetensors file: a pickle can run code when it is read")
        return value

    @field_validator("resolution")
    @classmethod
    def _multiple_of_32(cls, value: int) -> int:
        if value % 32:
            raise ValueError("must be a multiple of 32, the network's stride")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.warmup_epochs > self.epochs:
            raise ValueError("warmup_epochs must not exceed epochs")
        if self.freeze_epochs >= self.epochs:
            raise ValueError("freeze_epochs must be below epochs, or the network never learns")
        return self

    def to_hyperparameters(self) -> dict[str, str]:
        """The fields as a training job's hyperparameters: dashed names, every value a string."""
        return {name: _text(_value(self, path)) for name, path, _ in hyperparameter_fields()}

    @classmethod
    def from_hyperparameters(cls, values: dict[str, str]) -> "TrainConfig":
        """The reverse of ``to_hyperparameters``; what is absent keeps its default.

        Raises
        ------
        ConfigError
            Naming each unknown hyperparameter or impossible value.
        """
        paths = {name: path for name, path, _ in hyperparameter_fields()}
        nested: dict[str, Any] = {}
        for name, value in values.items():
            *groups, field = paths.get(name, (name,))
            target = nested
            for group in groups:
                target = target.setdefault(group, {})
            target[field] = value
        return cls.parse(nested)


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


@defaults_from("train_config.yaml")
class TrainingFile(StrictModel):
    """The whole of ``train_config.yaml``."""

    dataset: DatasetConfig = Field(description="NPZ tensors to training set.")
    train: TrainConfig = Field(description="Training set to classifier.")
    gates: Gates = Field(description="What a classifier must reach to become the champion.")


for _name, _recipe in PRESETS.items():
    TrainConfig.parse(_recipe, f"preset {_name} of train_presets.yaml")  # refused here, not when a launch names it


def hyperparameter_fields(
    model: type[StrictModel] = TrainConfig, group: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[str, ...], FieldInfo]]:
    """Each hyperparameter's dashed name, its path in the configuration, and its field."""
    for field_name, field in model.model_fields.items():
        path = (*group, field_name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, StrictModel):
            yield from hyperparameter_fields(field.annotation, path)
        else:
            yield "-".join(path).replace("_", "-"), path, field


def _value(config: StrictModel, path: tuple[str, ...]) -> Any:
    value: Any = config
    for name in path:
        value = getattr(value, name)
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
