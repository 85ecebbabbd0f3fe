"""Checks whose verdicts are kept by cohort or by architecture: none takes the place of another's."""

import warnings
from collections.abc import Callable
from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    Failure,
    PartitionsDefinition,
    PreviewWarning,
    asset_check,
)


def partitioned_check(
    by: PartitionsDefinition, **options: Any
) -> Callable[[Callable[..., AssetCheckResult]], AssetChecksDefinition]:
    """Dagster's `asset_check` with a verdict for each partition; `partition_of` says which is in question.

    Dagster 1.13 calls this a preview, and would say so once a check in every terminal and log.
    """

    def decorate(judge: Callable[..., AssetCheckResult]) -> AssetChecksDefinition:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PreviewWarning)
            return asset_check(partitions_def=by, **options)(judge)

    return decorate


def partition_of(context: AssetCheckExecutionContext) -> str:
    """The cohort or architecture that is to be judged.

    Raises
    ------
    Failure
        If the run is for none, as those of the button *Execute all*.
    """
    if not context.has_partition_key:
        raise Failure(
            "this check judges one cohort or architecture: materialize the one in question; what has not changed is "
            "not computed again",
            allow_retries=False,
        )
    return context.partition_key
