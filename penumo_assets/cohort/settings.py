"""How a cohort is prepared: by its own settings, or the defaults of all cohorts, and by what one launch sets for once.

A cohort's settings lie at ``settings/{cohort}.yaml``, as somebody wrote them: what they leave out has the default of
``configs/prepare_config.yaml``. Launches, sensors and backfills all read them here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.names import require_cohort_name
from penumo_assets.configs.base import ConfigError, leaves
from penumo_assets.configs.documents import MAX_CHARACTERS
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import STAGE_TABLE, STAGES
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore

MAX_BYTES = 4 * MAX_CHARACTERS
DEFAULT = "the default (configs/prepare_config.yaml)"


@dataclass(frozen=True)
class Settings:
    """``config`` is in force; ``kept`` is what holds without what the launch sets for once, and where that stands."""

    config: PrepareConfig
    kept: PrepareConfig
    origin: str

    def as_yaml(self) -> str:
        """Every setting in force, as a file that `penumo settings` takes."""
        return yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def described(self, before: Mapping[str, Any], stages: Collection[str] = STAGES) -> str:
        """One line for a page: where they come from, what differs from the default, what holds for this launch only,
        and how these stages were set ``before``, by the cohort's manifest, where that differs."""
        parts = [self.origin]
        if own := differences(PrepareConfig.defaults(), self.kept):
            parts[0] += f": {', '.join(own)}"
        if once := differences(self.kept, self.config):
            parts.append(f"this launch only: {', '.join(once)}")
        if before and (was := _was(self.config, before, stages)):
            parts.append(f"prepared before with {was}")
        return "; ".join(parts)


def settings_key(cohort: str) -> str:
    return f"settings/{cohort}.yaml"


def settings_in_force(store: ObjectStore, cohort: str, once: Mapping[str, Any] | None = None) -> Settings:
    """The settings in force for a cohort in a launch that sets these values for ``once``.

    Raises
    ------
    LandingError
        If the cohort's settings, or these with the launch's values, cannot be used.
    """
    kept, origin = PrepareConfig.defaults(), DEFAULT
    try:
        key = settings_key(cohort)
        kept = PrepareConfig.from_bytes(store.read(key, MAX_BYTES), key)
        origin = f"the cohort's ({key})"
    except ObjectMissing:
        pass
    except ConfigError as error:
        raise LandingError(f"{error}. Write them anew: penumo settings {cohort} FILE") from error
    try:
        return Settings(PrepareConfig.parse(_with(kept, once or {})), kept, origin)
    except ConfigError as error:
        raise LandingError(f"what this launch sets cannot be used: {error}") from error


@dataclass(frozen=True)
class NewSettings:
    """A cohort's settings, checked and not written yet.

    ``version`` is that of those they take the place of, None where there are none; ``changes`` what will differ.
    """

    cohort: str
    data: bytes
    version: str | None
    changes: tuple[str, ...]

    def write(self, store: ObjectStore) -> None:
        """Keep them.

        Raises
        ------
        ObjectChanged
            If somebody else has written the cohort's settings meanwhile.
        """
        store.swap(settings_key(self.cohort), self.data, self.version)


def check_settings(store: ObjectStore, cohort: str, data: bytes, called: str) -> NewSettings:
    """Settings for a cohort from the file ``called``, compared with those in force.

    Raises
    ------
    LandingError
        If the cohort's name cannot be part of a key, or the settings cannot be used: each field that is unknown or
        impossible is named.
    """
    require_cohort_name(cohort)
    try:
        wanted = PrepareConfig.from_bytes(data, called)
    except ConfigError as error:
        raise LandingError(f"{error}. The names are those of configs/prepare_config.yaml") from error
    try:
        before, version = store.read_version(settings_key(cohort))
    except ObjectMissing:
        return NewSettings(cohort, data, None, differences(PrepareConfig.defaults(), wanted))
    try:
        changes = differences(PrepareConfig.from_bytes(before, settings_key(cohort)), wanted)
    except ConfigError as error:
        changes = (f"those before cannot be used: {error}",)
    return NewSettings(cohort, data, version, changes)


def differences(before: PrepareConfig, after: PrepareConfig) -> tuple[str, ...]:
    """Every setting that differs, as ``segment.threshold 0.3 (else 0.5)``."""
    pairs = zip(leaves(before), leaves(after), strict=True)
    return tuple(f"{name} {_text(new)} (else {_text(old)})" for (name, old, _), (_, new, _) in pairs if new != old)


def _was(config: PrepareConfig, before: Mapping[str, Any], stages: Collection[str]) -> str:
    sections = {"labels", *(STAGE_TABLE[stage].settings for stage in stages)}
    try:
        recorded = leaves(PrepareConfig.parse(before))
    except ConfigError:
        return "other settings, of an earlier version"
    pairs = zip(recorded, leaves(config), strict=True)
    changed = [(name, old) for (name, old, _), (_, new, _) in pairs if old != new]
    return ", ".join(f"{name} {_text(old)}" for name, old in changed if name.split(".")[0] in sections)


def _text(value: Any) -> str:
    return "empty" if value in (None, "", [], {}) else str(value)


def _with(model: BaseModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration, those that are given in the place of its own."""
    values = {name: getattr(model, name) for name in type(model).model_fields}
    return {
        name: _with(value, given.get(name) or {}) if isinstance(value, BaseModel) else given.get(name, value)
        for name, value in values.items()
    }
