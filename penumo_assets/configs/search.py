"""Which hyperparameters are searched, within which bounds, and for how long.

The space stands in ``search_space.yaml``: one file for Optuna and for SageMaker's tuning jobs.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from penumo_assets.configs.base import ConfigError, StrictModel
from penumo_assets.configs.documents import DocumentError, parse_yaml
from penumo_assets.configs.train import TrainConfig, hyperparameter_fields

OBJECTIVE = "validation_roc_auc"
FINAL_OBJECTIVE = f"final_{OBJECTIVE}"  # logged once, at the end: the best epoch's, not the last one's
SPACE_FILE = Path(__file__).parent / "search_space.yaml"


class NumberRange(StrictModel):
    """A number between two bounds, both included; on a logarithmic scale where its size matters, not its value."""

    type: Literal["float", "integer"]
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "NumberRange":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic scale needs low above 0")
        if self.type == "integer" and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("the bounds of an integer must be whole numbers")
        return self

    def edges(self) -> list[str]:
        return [self.text(self.low), self.text(self.high)]

    def text(self, value: float) -> str:
        """As a hyperparameter: SageMaker and argparse take strings."""
        return str(int(value)) if self.type == "integer" else repr(float(value))


class Choice(StrictModel):
    """One of several values."""

    type: Literal["choice"]
    values: list[str] = Field(min_length=2)

    def edges(self) -> list[str]:
        return self.values


Parameter = Annotated[NumberRange | Choice, Field(discriminator="type")]


class SearchSpace(StrictModel):
    """The hyperparameters to search, by their dashed names."""

    parameters: dict[str, Parameter] = Field(min_length=1, description="Name of each hyperparameter and its range.")

    @model_validator(mode="after")
    def _trainable(self) -> "SearchSpace":
        # Every edge must be a hyperparameter that training takes, or trials fail one by one hours later.
        known = {name for name, _, _ in hyperparameter_fields()}
        for name, parameter in self.parameters.items():
            if name not in known:
                raise ValueError(f"{name} is no hyperparameter of jobs/train")
            for edge in parameter.edges():
                try:
                    TrainConfig.from_hyperparameters({name: edge})
                except ConfigError as error:
                    raise ValueError(f"{name}={edge}: {error}") from error
        return self


class SearchConfig(StrictModel):
    """How long to search, and around which fixed settings."""

    trials: int = Field(12, ge=1, le=500, description="Trainings to run.")
    parallel: int = Field(
        2, ge=1, le=100, description="Trainings at a time on SageMaker; a local search runs one after another."
    )
    epochs: int = Field(15, ge=1, le=10_000, description="Epochs of each trial; early stopping may end it sooner.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the sampler: same seed, same trials.")
    space: str = Field(
        "",
        description="The space to search, as YAML text in the form of configs/search_space.yaml; empty: that file.",
    )

    def search_space(self) -> SearchSpace:
        """The space that ``space`` describes.

        Raises
        ------
        ConfigError
            If it is not YAML, or names a hyperparameter or a bound that training would refuse.
        """
        if not self.space:
            return SearchSpace.from_yaml(SPACE_FILE)
        try:
            return SearchSpace.parse(parse_yaml(self.space))
        except DocumentError as error:
            raise ConfigError(f"the search space is not valid YAML: {error}") from error
