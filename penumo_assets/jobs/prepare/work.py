"""The work list that the orchestrator hands to the prepare job: one item per image that needs computing."""

import hashlib
import hmac
import os
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from penumo_assets.jobs.contract import JobError, json_lines
from penumo_assets.jobs.manifest import STAGES, ManifestRow

# The variable with the pseudonymisation key: the orchestrator passes it on, the prepare job reads it.
KEY_VARIABLE = "PENUMO_DEID_KEY"
DEMO_KEY = "phantoms-have-no-secrets"
"""The phantoms' patients do not exist, so everybody may know their key. A film needs a secret that its owner keeps."""


class WorkItem(BaseModel):
    """One image and the stages to compute for it.

    ``landed`` is the image file's name below the landing input, ``truths`` those of its ground-truth mask or masks, one
    a lung; ``label_patient_id`` is the patient id as labels.csv gives it, before pseudonymisation. These three can
    identify somebody: they are for reading, and not for a message or an output. Stages that are not to be computed
    are read from their stored outputs, which ``row.stages`` names.
    """

    model_config = ConfigDict(extra="forbid")

    row: ManifestRow
    compute: list[str]
    fingerprints: dict[str, str]
    landed: str
    label_patient_id: str | None = None
    truths: tuple[str, ...] = ()


def dump_work(items: Iterable[WorkItem]) -> bytes:
    return json_lines(item.model_dump(exclude_defaults=True) for item in items)


def work_lines(data: bytes) -> list[bytes]:
    """The items as they were written, one per line: a tenth of the memory of the parsed ones."""
    return [line for line in data.split(b"\n") if line]


def parse_item(line: bytes) -> WorkItem:
    return WorkItem.model_validate_json(line)


def drop_rejected_stages(item: WorkItem) -> None:
    """A rejected image has no outputs from the stage that rejected it on."""
    row = item.row
    if row.status == "rejected" and row.stage in STAGES:
        for later in STAGES[STAGES.index(row.stage) :]:
            row.stages.pop(later, None)


def key_id() -> str:
    """Tells one pseudonymisation key from another; empty without one.

    Made from the key and as secret: what names a patient goes into a digest that others can see only together with it,
    or whoever guesses the name could test the guess.
    """
    key = os.environ.get(KEY_VARIABLE, "").encode()
    return hmac.new(key, b"penumo key id", hashlib.sha256).hexdigest() if key else ""


def key_fingerprint() -> str:
    """Tells in a manifest which key a cohort was prepared with; empty without one. It is no way back to the key, and
    tests a guess no better than the pseudonyms beside it do."""
    return hmac.new(key_id().encode(), b"penumo key fingerprint", hashlib.sha256).hexdigest()[:16] if key_id() else ""


def key_from_environment() -> bytes | None:
    """The pseudonymisation key, ``None`` where there is none.

    Raises
    ------
    JobError
        If it is too short to be a secret.
    """
    value = os.environ.get(KEY_VARIABLE, "")
    if value and len(value) < 16:
        raise JobError(f"{KEY_VARIABLE} must have at least 16 bytes")
    return value.encode() or None
