"""Requests to SageMaker, and what an error in the answer means for the job."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from penumo_assets.resources.compute.spec import JobFailed

# The request failed although it is right: the same request may succeed later.
PASSING_ERRORS = (
    "ThrottlingException",
    "ResourceLimitExceeded",
    "CapacityError",
    "InternalServerError",
    "InternalFailure",
    "ServiceUnavailable",
)


def described(name: str, request: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """The answer to a request for a description; None if there is no job of this name.

    Raises
    ------
    JobFailed
        If it cannot be described. The job, if there is one, goes on.
    """
    try:
        return request()
    except ClientError as error:
        code, text = _code(error), _text(error).lower()
        if code == "ResourceNotFound":
            return None
        if code == "ValidationException" and ("not found" in text or "could not find" in text):
            return None
        message = f"SageMaker does not describe job {name}: {code}"
        raise JobFailed(message, passing=code in PASSING_ERRORS) from error
    except BotoCoreError as error:
        raise JobFailed(f"SageMaker does not answer: {type(error).__name__}", passing=True) from error


def created(name: str, request: Callable[[], Any]) -> bool:
    """Send a request that creates a job; False if another process has created it first.

    Raises
    ------
    JobFailed
        If SageMaker refuses; ``passing`` if it may accept the same request later.
    """
    try:
        request()
    except ClientError as error:
        code, text = _code(error), _text(error)
        if code == "ResourceInUse":
            return False
        passing = code in PASSING_ERRORS and "is 0 Instances" not in text  # a limit of 0 will not pass
        raise JobFailed(f"SageMaker refuses job {name}: {code}: {text}", passing=passing) from error
    except ParamValidationError as error:
        raise JobFailed(f"job {name} has settings that SageMaker does not take: {error}") from error
    except BotoCoreError as error:
        raise JobFailed(f"SageMaker does not answer: {type(error).__name__}", passing=True) from error
    return True


def stopped(request: Callable[[], Any]) -> None:
    """Send a request that stops a job, which may have ended meanwhile."""
    try:
        request()
    except ClientError as error:
        if _code(error) not in {"ResourceNotFound", "ValidationException"}:
            raise


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "unknown")


def _text(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Message", "")
