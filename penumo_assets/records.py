"""The records that say which training set, model, report, segmenter or champion is the current one, and where it lies.

Each is one JSON object in the store, read and written here and nowhere else. A field that is added needs a default, so
that records of earlier versions stay readable.
"""

from typing import Any, ClassVar, Self

from dagster import Failure
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penumo_assets.resources.compute.search import Trial
from penumo_assets.resources.compute.spec import JobInput
from penumo_assets.resources.endpoints import Variant
from penumo_assets.resources.storage.object_store import (
    ObjectChanged,
    ObjectMissing,
    ObjectStore,
    StorageError,
    to_json,
)


class Record(BaseModel):
    """One JSON object at ``KEY``, in which the architecture, cohort or version that it is about takes the place of
    ``{}``."""

    model_config = ConfigDict(frozen=True)
    KEY: ClassVar[str]
    MADE_BY: ClassVar[str] = ""

    @classmethod
    def key(cls, about: str = "") -> str:
        return cls.KEY.format(about)

    @classmethod
    def read(cls, store: ObjectStore, about: str = "") -> Self:
        """The record as it is stored.

        Raises
        ------
        ObjectMissing
            If there is none yet.
        StorageError
            If it is no record of this kind.
        """
        try:
            return cls.model_validate_json(store.read(cls.key(about)))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            reason = f"{cls.key(about)} cannot be read ({where}: {problem['msg']})"
            raise StorageError(f"{reason}: materialize what writes it again") from error

    @classmethod
    def find(cls, store: ObjectStore, about: str = "") -> Self | None:
        """The record, None if there is none yet; otherwise as `read`."""
        try:
            return cls.read(store, about)
        except ObjectMissing:
            return None

    @classmethod
    def need(cls, store: ObjectStore, about: str = "") -> Self:
        """The record, for a step that cannot do without it.

        Raises
        ------
        Failure
            If there is none yet: the sentence says what to materialize.
        """
        try:
            return cls.read(store, about)
        except ObjectMissing as error:
            where = f" for {about}" if about else ""
            reason = f"{cls.MADE_BY} has not been materialized{where}: materialize it first"
            raise Failure(reason, allow_retries=False) from error

    def write(self, store: ObjectStore, about: str = "") -> None:
        store.write(self.key(about), self.dump())

    def dump(self) -> bytes:
        return to_json(self.model_dump(mode="json"))


class TrainingSetRecord(Record):
    """The current training set: objects ``prefix/name``, the digest of its content, the cohorts in it, and
    whether they are phantoms."""

    KEY = "training_set/current.json"
    MADE_BY = "training_set"

    prefix: str
    names: tuple[str, ...]
    digest: str
    cohorts: tuple[str, ...] = ()
    phantoms: bool = False

    @staticmethod
    def prefix_of(digest: str) -> str:
        """Where the training set with this digest lies."""
        return f"training_set/{digest[:16]}"

    @property
    def files(self) -> JobInput:
        return JobInput(self.prefix, self.names)

    def split(self, name: str) -> JobInput:
        """One split as a job's channel."""
        folder = f"{name}/"
        return JobInput(
            f"{self.prefix}/{name}", tuple(item.removeprefix(folder) for item in self.names if item.startswith(folder))
        )


class ModelRecord(Record):
    """An architecture's newest model: its archive, the job that trained it, on what, and what that job reported."""

    KEY = "models/{}/current.json"
    MADE_BY = "trained_model"

    prefix: str
    name: str
    job_name: str
    dataset_digest: str
    mlflow_run_id: str | None = None
    values: dict[str, Any] = {}

    @property
    def archive(self) -> JobInput:
        return JobInput(self.prefix, (self.name,))


class SearchRecord(Record):
    """What an architecture's newest search found: the best trial, and every other."""

    KEY = "models/{}/search.json"

    objective: str
    dataset_digest: str
    best: Trial
    trials: tuple[Trial, ...] = ()


class ReportRecord(Record):
    """An architecture's newest report: objects ``prefix/name``, the model that it judges, and its headline figures."""

    KEY = "reports/{}/current.json"
    MADE_BY = "evaluation_report"

    prefix: str
    names: tuple[str, ...] = ()
    model: ModelRecord
    values: dict[str, Any] = {}

    @classmethod
    def folder(cls, about: str) -> str:
        """Where the reports of an architecture or a cohort lie, each in a folder of its own."""
        return cls.key(about).rpartition("/")[0]


class ExternalRecord(ReportRecord):
    """The same of a cohort's newest external validation."""

    KEY = "external_validation/{}/current.json"
    MADE_BY = "external_validation"


class LooksRecord(Record):
    """Which models, by their training job, were measured on the test set with this digest."""

    KEY = "reports/test_sets/{}.json"

    models: tuple[str, ...] = ()

    @classmethod
    def add(cls, store: ObjectStore, digest: str, job: str) -> int:
        """Keep that the model of a training job is measured; how many were by now. Safe where several are at once."""
        while True:
            try:
                data, version = store.read_version(cls.key(digest))
                known = cls.model_validate_json(data).models
            except ObjectMissing:
                version, known = None, ()
            if job in known:
                return len(known)
            try:
                store.swap(cls.key(digest), cls(models=(*known, job)).dump(), version)
            except ObjectChanged:
                continue
            return len(known) + 1


class SegmenterRecord(Record):
    """Weights of the lung segmenter: an object ``prefix/name``, or the bundled file where ``prefix`` is empty."""

    KEY = "models/lung_segmenter/current.json"

    prefix: str
    name: str
    sha256: str


class DecisionRule(BaseModel):
    """The cut that a report chose on validation, None where there are more than two classes, and its calibration."""

    model_config = ConfigDict(frozen=True)

    threshold: float | None = None
    temperature: float | None = None
    offsets: tuple[float, ...] = Field(default=(), exclude_if=lambda offsets: not offsets)
    source: str | None = None
    undecided_below: float | None = Field(default=None, exclude_if=lambda cut: cut is None)


class ServingArchive(BaseModel):
    """The archive ``prefix/name`` that serves a version."""

    model_config = ConfigDict(frozen=True)

    prefix: str
    name: str

    @property
    def archive(self) -> JobInput:
        return JobInput(self.prefix, (self.name,))


class VersionRecord(Record):
    """A registered model: what it is, where it came from, and how it decides. It never changes but for its approval
    and how it was ``promoted``."""

    KEY = "models/versions/{}.json"

    version: str
    architecture: str
    training_job: str
    dataset_digest: str
    phantoms: bool = False
    model: ModelRecord
    serving: ServingArchive
    report: str
    rule: DecisionRule
    package: str | None = None
    approval: str
    promoted: str = ""


class ChampionRecord(VersionRecord):
    """The version in use, and the one before it."""

    KEY = "models/champion.json"

    previous: str | None = None


class EndpointRecord(Record):
    """The variant that the endpoint serves, once it was accepted, and the one that it served before."""

    KEY = "models/endpoint.json"

    variant: Variant
    previous: Variant | None = None


class PredictionsRecord(Record):
    """A cohort's newest predictions, the version that made them, and how their features have moved."""

    KEY = "predictions/{}/current.json"
    MADE_BY = "predictions"

    prefix: str
    names: tuple[str, ...] = ()
    model_version: str
    drift: tuple[dict[str, Any], ...] = ()


class RetiredRecord(Record):
    """Who took a cohort out of use, when (UTC), and why; how many of its objects were erased below each folder of the
    root, and when that ended: empty while it has not."""

    KEY = "retired/{}.json"

    by: str
    at: str
    reason: str
    erased: dict[str, int] = {}
    erased_at: str = ""
