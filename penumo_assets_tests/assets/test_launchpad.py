import dagster as dg
import pytest

from penumo_assets.assets.shared import launchpad_config, parsed
from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.prepare import OnBadMask, PrepareConfig

Launchpad = launchpad_config(PrepareConfig)


def test_given_values_join_the_defaults() -> None:
    config = Launchpad(segment={"on_bad_mask": "whole_image"})
    settings = parsed(PrepareConfig, config)
    assert settings.segment.on_bad_mask is OnBadMask.whole_image
    assert settings.segment.threshold == PrepareConfig.defaults().segment.threshold
    assert settings.enhance == PrepareConfig().enhance


def test_an_impossible_value_is_refused_with_the_fields_name() -> None:
    with pytest.raises(ConfigError, match=r"segment\.threshold.*less than 1"):
        parsed(PrepareConfig, Launchpad(segment={"threshold": 3.0}))
    with pytest.raises(ConfigError, match=r"enhance\.gaussian_blur\.kernel_size.*odd"):
        parsed(PrepareConfig, Launchpad(enhance={"gaussian_blur": {"kernel_size": 4}}))


def test_an_unknown_key_is_refused_before_anything_runs() -> None:
    @dg.asset
    def films(config: Launchpad) -> None: ...  # type: ignore[valid-type]

    with pytest.raises(dg.DagsterInvalidConfigError, match='unexpected config entry "treshold"'):
        dg.materialize([films], run_config={"ops": {"films": {"config": {"segment": {"treshold": 0.5}}}}})


def test_every_field_is_described() -> None:
    def walk(model: type) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            if isinstance(field.annotation, type) and issubclass(field.annotation, dg.Config):
                walk(field.annotation)

    walk(Launchpad)


def test_choices_are_spelled_out() -> None:
    segment = Launchpad.model_fields["segment"].annotation
    assert "reject, whole_image" in segment.model_fields["on_bad_mask"].description
