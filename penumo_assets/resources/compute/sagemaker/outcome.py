"""How a SageMaker job stands or has ended, and what follows from it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

RUNNING = ("InProgress", "Stopping")
Cause = Literal["capacity", "throttling", "internal", "memory", "stopped", "program"]
TRANSIENT: tuple[Cause, ...] = ("capacity", "throttling", "internal")

# FailureReason begins with the kind of error; SageMaker Pipelines' retry policies go by the same words.
_CAUSES: tuple[tuple[Cause, str], ...] = (
    ("capacity", r"^CapacityError|unable to provision|insufficient capacity"),
    ("throttling", r"ThrottlingException|Rate exceeded|Please reduce your request rate"),
    ("internal", r"^InternalServerError|^InternalFailure|encountered an internal error"),
)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|MemoryError|cannot allocate memory|exit code:? ?137|instance type with more memory",
    re.IGNORECASE,
)
_CONSOLE = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
_CONSOLE_PAGES = {
    "processing": "processing-jobs",
    "training": "jobs",
    "tuning": "hyper-tuning-jobs",
    "endpoint": "endpoints",
}


@dataclass(frozen=True)
class Description:
    """What the three Describe calls, of processing, training and tuning jobs, say alike.

    Attributes
    ----------
    status : InProgress, Completed, Failed, Stopping or Stopped.
    reason : why it failed, in the program's words where it left some.
    seconds : how long its instances ran, summed over them. None before they have.
    billable_seconds : what is paid for, summed over instances; less than ``seconds`` on spot instances.
    timed_out : it was stopped because it had run for as long as it may.
    """

    status: str
    detail: str
    reason: str
    instance_type: str
    instance_count: int
    seconds: int | None
    billable_seconds: int | None
    timed_out: bool

    @classmethod
    def of_processing(cls, answer: Mapping[str, Any]) -> "Description":
        cluster = answer["ProcessingResources"]["ClusterConfig"]
        spent = _seconds(answer.get("ProcessingStartTime"), answer.get("ProcessingEndTime"))
        total = None if spent is None else spent * cluster["InstanceCount"]
        reason = answer.get("ExitMessage") or answer.get("FailureReason", "")
        # The exit message is the program's; SageMaker's own reason says what else went wrong.
        if answer.get("FailureReason") and not answer["FailureReason"].startswith("AlgorithmError"):
            reason = answer["FailureReason"]
        return cls(
            status=answer["ProcessingJobStatus"],
            detail="",
            reason=plain(reason),
            instance_type=cluster["InstanceType"],
            instance_count=cluster["InstanceCount"],
            seconds=total,
            billable_seconds=total,
            timed_out=_timed_out(answer, spent),
        )

    @classmethod
    def of_training(cls, answer: Mapping[str, Any]) -> "Description":
        cluster = answer["ResourceConfig"]
        spent = answer.get(
            "TrainingTimeInSeconds", _seconds(answer.get("TrainingStartTime"), answer.get("TrainingEndTime"))
        )
        billed = answer.get("BillableTimeInSeconds", spent)
        count = cluster["InstanceCount"]
        return cls(
            status=answer["TrainingJobStatus"],
            detail=answer.get("SecondaryStatus", ""),
            reason=plain(answer.get("FailureReason", "")),
            instance_type=cluster["InstanceType"],
            instance_count=count,
            seconds=None if spent is None else spent * count,
            billable_seconds=None if billed is None else billed * count,
            timed_out=answer.get("SecondaryStatus") == "MaxRuntimeExceeded" or _timed_out(answer, spent),
        )

    @classmethod
    def of_tuning(cls, answer: Mapping[str, Any]) -> "Description":
        counts = answer["TrainingJobStatusCounters"]
        trials = answer["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"]
        definition = answer["TrainingJobDefinition"]["ResourceConfig"]
        done, failed = counts.get("Completed", 0), counts.get("NonRetryableError", 0)
        return cls(
            status=answer["HyperParameterTuningJobStatus"],
            detail=f"{done} of {trials} trainings completed, {failed} failed",
            reason=plain(answer.get("FailureReason", "")),
            instance_type=definition["InstanceType"],
            instance_count=definition["InstanceCount"],
            seconds=None,
            billable_seconds=None,
            timed_out=False,
        )

    @property
    def running(self) -> bool:
        return self.status in RUNNING

    def cause(self, log_tail: str) -> Cause:
        """Why a job that did not complete ended."""
        if self.status == "Stopped":
            return "stopped"
        if cause := transient_cause(self.reason):
            return cause
        return "memory" if _OUT_OF_MEMORY.search(f"{self.reason}\n{log_tail}") else "program"

    def sentence(self, cause: Cause, variable: str) -> str:
        """What a person wants to know, after the words "job NAME"."""
        if cause == "stopped":
            if self.detail == "MaxWaitTimeExceeded":
                return "was stopped: it has waited for spot capacity for the longest time it may"
            return "was stopped: it has run for the longest time it may" if self.timed_out else "was stopped"
        if cause == "memory":
            return (
                f"ran out of memory on {self.instance_type}: choose a larger instance with {variable} ({self.reason})"
            )
        return f"failed: {self.reason or 'no reason given'}"


def _timed_out(answer: Mapping[str, Any], spent: int | None) -> bool:
    limit = answer.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
    return spent is not None and limit is not None and spent >= limit


def _seconds(start: datetime | None, end: datetime | None) -> int | None:
    return None if start is None or end is None else max(0, round((end - start).total_seconds()))


def transient_cause(reason: str) -> Cause | None:
    """Why a job failed, if through no fault of its program."""
    return next((cause for cause, pattern in _CAUSES if re.search(pattern, reason, re.IGNORECASE)), None)


def plain(reason: str) -> str:
    """The reason without what SageMaker puts around a program's own words."""
    text = re.sub(r"^AlgorithmError:[ ,]*", "", reason)
    return re.sub(r",? ?exit code: 1$", "", text).strip() or reason


def console_urls(region: str, kind: str, group: str, name: str) -> tuple[str, str]:
    """Addresses of the job's page and of its log in the AWS console."""
    import boto3

    host = _CONSOLE.get(boto3.Session().get_partition_for_region(region), _CONSOLE["aws"])
    base = f"https://{region}.{host}"
    page = _CONSOLE_PAGES[kind]
    escaped = group.replace("/", "$252F")
    log = f"{base}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{escaped}"
    return (
        f"{base}/sagemaker/home?region={region}#/{page}/{name}",
        f"{log}$3FlogStreamNameFilter$3D{name}$252F",
    )
