"""Which landed files were rejected, by the names they landed under: for those who may read landing, and nobody else."""

from dataclasses import dataclass

from penumo_assets.cohort.landing import read_landing
from penumo_assets.cohort.publish import read_manifest, read_settings
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.resources.storage.object_store import ObjectStore


@dataclass(frozen=True)
class Rejected:
    """A rejected file: its name below the cohort's landing folder, and why it was rejected."""

    name: str
    source: str
    code: str
    reason: str


def rejected_files(store: ObjectStore, cohort: str, key: bytes | None) -> list[Rejected]:
    """The cohort's rejected files in the order of their names.

    The manifest knows them by pseudonyms, which ``key`` makes of the names in landing and in labels.csv. A pseudonym
    of a name that is no longer there, or of another key, stands for itself.

    Raises
    ------
    LandingError
        If nothing has landed, or labels.csv cannot be read.
    """
    config = PrepareConfig.model_validate(read_settings(store, cohort))
    landing = read_landing(store, cohort, config.labels, key)
    names = {label.source: label.name for label in landing.labels.values() if label.name}
    files = [*landing.files, *(mask for truths in landing.truths.values() for mask in truths)]
    files += [mask for mask, _ in landing.unpaired]
    names |= {file.source: file.landed_name for file in files}
    found = [
        Rejected(names.get(row.source, row.source), row.source, row.code or "", row.reason or "")
        for row in read_manifest(store, cohort)
        if row.status == "rejected"
    ]
    return sorted(found, key=lambda item: item.name)
