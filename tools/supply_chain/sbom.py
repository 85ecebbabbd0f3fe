"""Write a CycloneDX bill of materials of the lock: every pinned package with its version, its purl and its licence.

Licences are those that the installed packages declare; a package that declares none, or is installed in another
version than the lock's, stands without.

    python tools/supply_chain/sbom.py constraints.txt build/sbom.cdx.json
"""

import argparse
import hashlib
import re
import uuid
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

APPLICATION = "penumo-assets"
_PIN = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)==([A-Za-z0-9.+!]+)")
_LICENSES = LicenseFactory()
_LONGEST_NAME = 64


class LockError(ValueError):
    """A line of the lock that is not one exact pin."""


def read_lock(text: str) -> dict[str, str]:
    """Version of each pinned package, by its normalised name.

    Raises
    ------
    LockError
        If a line is not ``name==version``, or names a package again.
    """
    pins: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        match = _PIN.fullmatch(line)
        if match is None or match[1] in pins:
            raise LockError(f"line {number} of the lock is not one exact pin: {line}")
        pins[match[1]] = match[2]
    return pins


def bill_of_materials(lock: str) -> Bom:
    """The packages of a lock as components of the application."""
    application = Component(name=APPLICATION, type=ComponentType.APPLICATION, bom_ref=APPLICATION)
    # The same lock makes the same bill but for its time.
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, hashlib.sha256(lock.encode()).hexdigest()))
    bom.metadata.component = application
    for name, version in read_lock(lock).items():
        purl = PackageURL("pypi", name=name, version=version)
        component = Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            purl=purl,
            bom_ref=purl.to_string(),
            licenses=list(_licenses(name, version)),
        )
        bom.components.add(component)
    bom.register_dependency(application, bom.components)
    return bom


def _licenses(name: str, version: str) -> Iterator[License]:
    try:
        declared = metadata(name)
    except PackageNotFoundError:
        return
    if declared["Version"].partition("+")[0] != version:  # "+cpu" is a build of the same version
        return
    text = declared["License-Expression"] or _name_of_licence(declared["License"] or "")
    if text:
        yield _LICENSES.make_from_string(text, license_acknowledgement=LicenseAcknowledgement.DECLARED)
        return
    for classifier in declared.get_all("Classifier") or ():
        if classifier.startswith("License :: OSI Approved :: "):
            yield _LICENSES.make_with_name(classifier.rpartition(" :: ")[2])


def _name_of_licence(text: str) -> str:
    """Nothing where an older package has the licence's whole text in the place of its name."""
    return text if len(text) <= _LONGEST_NAME and "\n" not in text and text != "UNKNOWN" else ""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args(argv)
    bom = bill_of_materials(arguments.lock.read_text(encoding="utf-8"))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n", encoding="utf-8")
    licensed = sum(bool(component.licenses) for component in bom.components)
    print(f"{arguments.output}: {len(bom.components)} packages, {licensed} with their licence")


if __name__ == "__main__":
    main()
