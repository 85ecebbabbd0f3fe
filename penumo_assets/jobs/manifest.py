"""The stages of a cohort, and its manifest: one row per landed image, what became of it, and from what it was made.

Stored as JSON lines at ``manifests/{cohort}.jsonl``. Readers trust the manifest, never a listing.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penumo_assets.imaging.boxes import Box


@dataclass(frozen=True)
class Stage:
    """All that is said of a stage in one place; what it computes stands in `jobs.prepare.stages`.

    ``name`` is its folder in the store, ``asset`` what Dagster calls it, ``settings`` its section of `PrepareConfig`,
    ``deps`` the assets that it reads. Raise ``version`` when its output changes for the same input and settings.
    """

    name: str
    asset: str
    version: str
    settings: str
    deps: tuple[str, ...]
    kinds: frozenset[str]
    description: str


STAGE_TABLE = {
    stage.name: stage
    for stage in (
        Stage(
            name="raw",
            asset="raw_images",
            version="4",
            settings="decode",
            deps=("landing",),
            kinds=frozenset({"dicom", "jpeg", "png"}),
            description="Images without identity, JPEG and PNG coded as they landed, else PNG of the native bit depth, "
            "and one manifest row per landed file, accepted or rejected with its reason.",
        ),
        Stage(
            name="masks",
            asset="lung_masks",
            version="3",
            settings="segment",
            deps=("raw_images", "lung_segmenter"),
            kinds=frozenset({"pytorch", "png"}),
            description="Lung masks, 512x512x1 uint8 {0, 255}, in letterbox coordinates.",
        ),
        Stage(
            name="preprocessed",
            asset="preprocessed_images",
            version="5",
            settings="enhance",
            deps=("raw_images", "lung_masks"),
            kinds=frozenset({"opencv", "png"}),
            description="Images cropped to the lungs and enhanced (CLAHE, blur, min-max stretch), 224x224 PNG.",
        ),
        Stage(
            name="npz",
            asset="npz_tensors",
            version="2",
            settings="npz",
            deps=("lung_masks", "preprocessed_images"),
            kinds=frozenset({"numpy"}),
            description="Tensors (224, 224, 4) uint8 [R, G, B, Mask] at "
            "`npz/{cohort}/{publication}/{patient_id}.npz`, key `image`.",
        ),
    )
}
STAGES = tuple(STAGE_TABLE)
STAGE_ASSETS = tuple(stage.asset for stage in STAGE_TABLE.values())


class ManifestError(ValueError):
    """A manifest that cannot be read."""


class StageOutput(BaseModel):
    """What one stage made of one image.

    ``fingerprint`` is the digest of everything the output was made from: code version, settings and
    the fingerprint of the stage before. The same fingerprint means: nothing to compute.
    ``content`` tells outputs apart where the same pixels may be stored as other bytes: the digest of what the pixels
    were made from. Elsewhere ``sha256`` does.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    key: str
    sha256: str
    fingerprint: str
    facts: dict[str, Any] = Field(default_factory=dict)
    content: str | None = None

    @property
    def identity(self) -> str:
        """Equal for equal pixels."""
        return self.content or self.sha256


class ManifestRow(BaseModel):
    """One landed image.

    ``status`` is ``accepted`` or ``rejected``; a rejected row names the stage, a code and a reason.
    ``source`` is what the landed file is called outside landing: a pseudonym of its key below ``landing/{cohort}/``, or
    that key where ``labels.file_names`` says keep. Width and height are the decoded pixels'.
    ``split_key`` is the pseudonym of the patient's id, whatever ``patient_id`` shows of it: one patient has one key in
    every format. It is ``None`` without PENUMO_DEID_KEY. ``split`` is what labels.csv says of it; ``boxes`` are what a
    reader drew around the finding, as `imaging.boxes.parse_boxes` gives them; ``notes`` are short codes of what was
    decided, or is doubtful.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    image_id: str
    source: str
    source_etag: str
    source_bytes: int
    source_sha256: str | None = None
    patient_id: str | None = None
    split_key: str | None = None
    told_by: str | None = Field(default=None, description="Digest of what, beside the file, decided the patient's id.")
    label: str | None = None
    view: str | None = None
    sex: str | None = None
    age: int | None = None
    split: str | None = None
    boxes: list[Box] = Field(default_factory=list)
    extra: dict[str, str] = Field(default_factory=dict)
    status: str = "accepted"
    stage: str | None = None
    code: str | None = None
    reason: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    tags: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    mean_intensity: float | None = None
    stages: dict[str, StageOutput] = Field(default_factory=dict)
    attempted: dict[str, str] = Field(
        default_factory=dict, description="Fingerprint of the stage that rejected the image: no need to try it again."
    )

    def facts_of(self, stage: str) -> dict[str, Any]:
        """What a stage noted of its output; nothing where there is none."""
        return self.stages[stage].facts if stage in self.stages else {}

    def reject(self, stage: str, code: str, reason: str, fingerprint: str = "") -> None:
        self.status, self.stage, self.code, self.reason = "rejected", stage, code, reason
        self.attempted = {stage: fingerprint} if fingerprint else {}


def fingerprint(stage: str, settings: dict[str, Any], upstream: str) -> str:
    """Digest of what a stage's output depends on."""
    content = json.dumps([stage, STAGE_TABLE[stage].version, settings, upstream], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def dump_rows(rows: Iterable[ManifestRow]) -> bytes:
    """Rows as JSON lines, ordered by source, fields that are unset left out."""
    return b"".join(dump_row(row) for row in sorted(rows, key=lambda row: row.source))


def dump_row(row: ManifestRow) -> bytes:
    """One row's line, its line break included."""
    line = json.dumps(row.model_dump(exclude_defaults=True), sort_keys=True, ensure_ascii=False)
    return f"{line}\n".encode()


def load_rows(data: bytes) -> list[ManifestRow]:
    """Read what `dump_rows` wrote.

    Raises
    ------
    ManifestError
        Naming the first line that is not a manifest row.
    """
    rows = []
    for number, line in enumerate(data.decode("utf-8").split("\n")[:-1], start=1):
        try:
            rows.append(ManifestRow.model_validate_json(line))
        except ValidationError as error:
            raise ManifestError(f"manifest line {number} is not valid: {error.errors()[0]['msg']}") from error
    return rows


def stage_version(rows: Iterable[ManifestRow], stage: str) -> str:
    """Data version of one stage of a cohort: digest over its outputs' file names and identities, wherever they lie, and
    over what is known of each film: a corrected label is another version, and computes nothing."""
    made = [(row.stages[stage], row) for row in rows if stage in row.stages]
    outputs = sorted(
        (
            output.key.rsplit("/", 1)[-1],
            output.identity,
            json.dumps([row.label, row.view, row.sex, row.age, *row.boxes]),
        )
        for output, row in made
    )
    return hashlib.sha256(json.dumps(outputs).encode()).hexdigest()
