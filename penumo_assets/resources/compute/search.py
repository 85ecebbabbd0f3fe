"""Search hyperparameters by running trainings: what a trial is, and Optuna's way of choosing the next."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penumo_assets.configs.search import OBJECTIVE, NumberRange, SearchConfig, SearchSpace
from penumo_assets.resources.compute.spec import JobSpec

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Trial:
    """One training of a search; ``value`` is its objective, None where it failed for ``reason``."""

    number: int
    hyperparameters: Mapping[str, str]
    value: float | None
    job_name: str = ""
    reason: str = ""

    def sentence(self, trials: int) -> str:
        """A line of the log for one of ``trials``."""
        found = self.reason if self.value is None else f"{OBJECTIVE} {self.value:.4f}"
        name = f" ({self.job_name})" if self.job_name else ""
        return f"trial {self.number + 1} of {trials}{name}: {found} with {dict(self.hyperparameters)}"


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest objective; of equals the earliest. None if every trial failed."""
    finished = [trial for trial in trials if trial.value is not None]
    return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)


def with_hyperparameters(spec: JobSpec, values: Mapping[str, str]) -> JobSpec:
    """``spec`` with some of its ``--name value`` arguments replaced."""
    names = [name.removeprefix("--") for name in spec.arguments[::2]]
    merged = dict(zip(names, spec.arguments[1::2], strict=True)) | dict(values)
    return replace(spec, arguments=tuple(text for name, value in merged.items() for text in (f"--{name}", value)))


def optuna_trials(
    space: SearchSpace, config: SearchConfig, done: Sequence[Trial], run: Callable[[int, dict[str, str]], Trial]
) -> Iterator[Trial]:
    """Yield ``done`` and then new trials, each chosen by what the ones before found.

    Optuna's Tree-structured Parzen Estimator (Bergstra et al. 2011) chooses. Every trial has a sampler of its own
    seed, so a search that is taken up again goes on as if it had never stopped.
    """
    import optuna  # only searches need it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for number in range(config.trials):
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + number, n_startup_trials=5)
        asked = study.ask(_distributions(space))
        values = {name: _text(space, name, asked.params[name]) for name in space.parameters}
        # The sampler's answer depends only on the trials before, so a known trial is the one it asks for again.
        known = number < len(done) and dict(done[number].hyperparameters) == values
        trial = done[number] if known else run(number, values)
        if trial.value is None:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked, trial.value)
        yield trial


def _distributions(space: SearchSpace) -> dict[str, "optuna.distributions.BaseDistribution"]:
    from optuna import distributions

    result: dict[str, distributions.BaseDistribution] = {}
    for name, parameter in space.parameters.items():
        if not isinstance(parameter, NumberRange):
            result[name] = distributions.CategoricalDistribution(parameter.values)
        elif parameter.type == "integer":
            result[name] = distributions.IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
        else:
            result[name] = distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return result


def _text(space: SearchSpace, name: str, value: float | str) -> str:
    parameter = space.parameters[name]
    return parameter.text(float(value)) if isinstance(parameter, NumberRange) else str(value)
