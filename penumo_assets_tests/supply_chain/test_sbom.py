"""The bill of materials holds what the lock pins, and nothing else, in CycloneDX's own schema."""

import json
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from tools.supply_chain.sbom import APPLICATION, LockError, read_lock

CHECKOUT = Path(__file__).parents[2]
LOCK = CHECKOUT / "constraints.txt"
pytestmark = pytest.mark.trust


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `make sbom` writes."""
    output = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    command = [sys.executable, "tools/supply_chain/sbom.py", "constraints.txt", str(output)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    return output.read_text(encoding="utf-8")


@pytest.fixture
def components(text: str) -> dict[str, Any]:
    return {item["name"]: item for item in json.loads(text)["components"]}


def test_every_pinned_package_stands_in_it_with_its_version_and_purl_and_no_other(text: str) -> None:
    pins = [line.split("==") for line in LOCK.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found = [(item["name"], item["version"], item["purl"]) for item in json.loads(text)["components"]]
    assert sorted(found) == sorted((name, version, f"pkg:pypi/{name}@{version}") for name, version in pins)


def test_it_is_valid_cyclonedx(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    broken = text.replace('"type": "library"', '"type": "librarian"', 1)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_the_application_depends_on_each_of_them(text: str, components: dict[str, Any]) -> None:
    (edges,) = [item["dependsOn"] for item in json.loads(text)["dependencies"] if item["ref"] == APPLICATION]
    assert sorted(edges) == sorted(item["purl"] for item in components.values())


def test_licences_are_those_that_the_packages_declare(components: dict[str, Any]) -> None:
    for name, item in components.items():
        declared = metadata(name).get("License-Expression")
        if declared:
            (licence,) = item["licenses"]
            assert licence.get("expression", licence.get("license", {}).get("id")) == declared
    with_licence = sum("licenses" in item for item in components.values())
    assert with_licence > 0.95 * len(components)


def test_the_same_lock_makes_the_same_bill_but_for_its_time(text: str, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    command = [sys.executable, "tools/supply_chain/sbom.py", "constraints.txt", str(again)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    first, second = (json.loads(item) for item in (text, again.read_text(encoding="utf-8")))
    for bill in (first, second):
        del bill["metadata"]["timestamp"]
    assert first == second


@pytest.mark.parametrize("line", ["numpy>=2", "numpy", "Numpy==2.4.6", "numpy==2.4.6 ; extra", "tqdm==4.70.1"])
def test_a_line_that_is_not_one_exact_pin_is_refused(line: str) -> None:
    with pytest.raises(LockError, match="line 2 of the lock"):
        read_lock(f"tqdm==4.70.1\n{line}\n")


def test_the_lock_pins_every_package_that_the_application_asks_for() -> None:
    pins = read_lock(LOCK.read_text(encoding="utf-8"))
    asked = [Requirement(text) for text in metadata("penumo-assets").get_all("Requires-Dist") or ()]
    assert len(asked) > 30
    for requirement in asked:
        name = requirement.name.lower().replace("_", "-")
        assert requirement.specifier.contains(pins[name]), name
