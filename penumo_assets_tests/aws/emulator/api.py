"""The operations of the job API, over jobs that run."""

from datetime import UTC, datetime
from threading import Lock
from typing import Any

from penumo_assets_tests.aws.emulator.faults import FaultPlan, JobScript
from penumo_assets_tests.aws.emulator.image import image_uri, require_image
from penumo_assets_tests.aws.emulator.job import Job, JobHost
from penumo_assets_tests.aws.emulator.limits import Limits
from penumo_assets_tests.aws.emulator.rules import ApiError, service_model, validate
from penumo_assets_tests.aws.emulator.tuning import TUNING, Tuning

OPERATIONS = {
    f"{verb}{kind}Job": (verb, kind)
    for verb in ("Create", "Describe", "Stop")
    for kind in ("Processing", "Training", TUNING)
} | {"ListTrainingJobsForHyperParameterTuningJob": ("List", TUNING)}
_ARN_NAMES = {"Processing": "processing-job", "Training": "training-job", TUNING: "hyper-parameter-tuning-job"}


class JobApi:
    """Creates, describes and stops jobs. A name is taken for ever, whatever became of its job."""

    def __init__(self, host: JobHost, faults: FaultPlan, limits: Limits, region: str, account: str) -> None:
        self.default_script = JobScript()
        self.jobs: dict[tuple[str, str], Job | Tuning] = {}
        self._limits = limits
        self._host, self._faults, self._region, self._account = host, faults, region, account
        self._lock = Lock()

    def answer(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        """Raises ApiError for what the service would refuse."""
        verb, kind = OPERATIONS[operation]
        self._limits.require_rate(operation)
        validate(operation, params)
        answers = {"Create": self._create, "Describe": self._describe, "Stop": self._stop, "List": self._list}
        return answers[verb](kind, params)

    def stop_all(self) -> None:
        for job in list(self.jobs.values()):
            job.stop()
        for job in list(self.jobs.values()):
            job.thread.join(timeout=30)

    def script_of(self, name: str) -> JobScript | None:
        return next((job.script for (_, known), job in self.jobs.items() if known == name), None)

    def _create(self, kind: str, params: dict[str, Any]) -> dict[str, Any]:
        name = params[f"{kind}JobName"]
        definition = params.get("TrainingJobDefinition", params)
        self._host.require_buckets(definition)
        require_image(image_uri(definition), definition["RoleArn"])
        return {f"{kind}JobArn": self._begin(kind, name, params).arn}

    def _begin(self, kind: str, name: str, params: dict[str, Any]) -> Job | Tuning:
        arn = f"arn:aws:sagemaker:{self._region}:{self._account}:{_ARN_NAMES[kind]}/{name}"
        with self._lock:
            if (kind, name) in self.jobs:
                raise ApiError(
                    "ResourceInUse",
                    "Job name must be unique within an AWS account and region, and a job "
                    f"with this name already exists ({arn})",
                )
            job: Job | Tuning
            if kind == TUNING:
                job = Tuning(name, arn, params, JobScript(), lambda name, params: self._begin("Training", name, params))
            else:
                job = Job(kind, name, arn, params, self._faults.take_script(name, self.default_script), self._host)
            if isinstance(job, Job):
                jobs = [each for each in self.jobs.values() if isinstance(each, Job) and not each.ended]
                alike = [each.cluster for each in jobs if (each.kind, each.spot) == (kind, job.spot)]
                self._limits.require_quota(kind, job.cluster, job.spot, alike)
            self.jobs[kind, name] = job
        job.thread.start()
        return job

    def _find(self, kind: str, params: dict[str, Any]) -> Job | Tuning:
        name = params[f"{kind}JobName"]
        job = self.jobs.get((kind, name))
        unseen = job is not None and (datetime.now(UTC) - job.created).total_seconds() < self._limits.unseen_seconds
        if job is None or unseen:
            if kind == TUNING:
                raise ApiError("ResourceNotFound", f"Amazon SageMaker can't find a tuning job with name {name}")
            if kind == "Training":
                raise ApiError("ValidationException", "Requested resource not found.")
            raise ApiError("ValidationException", f"Could not find requested job with name: {name}")
        return job

    def _describe(self, kind: str, params: dict[str, Any]) -> dict[str, Any]:
        job = self._find(kind, params)
        members = service_model().operation_model(f"Describe{kind}Job").output_shape.members
        values = {**job.params, f"{kind}JobArn": job.arn, **job.state()}
        return {name: _wire(value) for name, value in values.items() if name in members and value is not None}

    def _list(self, kind: str, params: dict[str, Any]) -> dict[str, Any]:
        """Pages of at most MaxResults; sorted by creation only, which is all that is asked for."""
        job = self._find(kind, params)
        assert isinstance(job, Tuning)
        start, size = int(params.get("NextToken", 0)), params.get("MaxResults", 10)
        found = job.summaries()
        if params.get("SortOrder") == "Descending":
            found.reverse()
        page = [{name: _wire(value) for name, value in item.items()} for item in found[start : start + size]]
        more = {"NextToken": str(start + size)} if start + size < len(found) else {}
        return {"TrainingJobSummaries": page} | more

    def _stop(self, kind: str, params: dict[str, Any]) -> dict[str, Any]:
        job = self._find(kind, params)
        if job.ended:
            raise ApiError("ValidationException", f"The request was rejected because the job is in status {job.status}")
        job.stop()
        return {}


def _wire(value: Any) -> Any:
    return value.astimezone(UTC).timestamp() if isinstance(value, datetime) else value
