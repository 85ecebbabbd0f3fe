"""docs/configuration.md: written by its script from the models, and naming every variable that the package reads."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from dagster import AssetsDefinition

from penumo_assets.checks import ASSET_CHECKS
from penumo_assets.definitions import ASSETS
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.profile import _SAGEMAKER_FIELDS

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "configuration.md"
VARIABLE = re.compile(r"\bPENUMO_[A-Z_]*[A-Z]\b")


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("docs_configuration", CHECKOUT / "tools" / "configuration.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_page_is_what_the_models_say(generator) -> None:
    assert PAGE.read_text(encoding="utf-8") == generator.page(), "run: python tools/configuration.py"


def test_every_setting_has_a_description(generator) -> None:
    for section in (*generator.SECTIONS, *generator.CHECKS):
        for key, _, meaning in generator.leaves(section.model):
            assert meaning, f"{section.asset}: {key}"


def test_every_variable_that_the_package_reads_is_described(generator) -> None:
    files = [path for kind in ("*.py", "*.yaml") for path in (CHECKOUT / "penumo_assets").rglob(kind)]
    used = {name for path in files for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    described = {name for name, _, _ in generator.ENVIRONMENT}
    assert len(used) > 20
    assert used <= described, used - described


def test_no_variable_is_described_that_nothing_reads(generator) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (CHECKOUT / "penumo_assets").rglob("*.py"))
    for name, _, _ in generator.ENVIRONMENT:
        assert name.removesuffix("_SECRET_ARN") in text, name


def test_the_defaults_of_jobs_on_aws_are_those_of_the_runner(generator) -> None:
    shown = {name: default for name, default, _ in generator.ENVIRONMENT}
    for variable, field in _SAGEMAKER_FIELDS.items():
        default = SageMakerSettings.model_fields[field].default
        if isinstance(default, bool):
            assert shown[variable] == ("on" if default else "off"), variable
        elif default:
            assert float(default) == float(shown[variable]) if shown[variable].isdigit() else default in shown[variable]


def test_every_asset_with_settings_has_a_section(generator) -> None:
    """Its launchpad's keys: in its own section, or, as the section says, in another's."""
    fields = {
        op.name: set(getattr(op.config_schema.config_type, "fields", None) or ())
        for op in (item.op for item in ASSETS if isinstance(item, AssetsDefinition))
    }
    described = {section.asset: section for section in generator.SECTIONS}
    assert {name for name, keys in fields.items() if keys} - described.keys() == {"prepare_cohort"}  # a page of its own
    external = described["external_validation"]
    assert {*external.elsewhere, "leave_out"} == fields["external_validation"]
    assert [line.split("`")[1] for line in generator.rows(external)] == ["leave_out"]


def test_every_check_with_a_tolerance_is_listed(generator) -> None:
    schemas = {check.op.name: check.op.config_schema.config_type for check in ASSET_CHECKS}
    configurable = {name for name, schema in schemas.items() if getattr(schema, "fields", None)}
    assert {section.asset for section in generator.CHECKS} == configurable
