"""Run a job from an asset: failures become Dagster failures that say why, once, and are not retried."""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import AssetExecutionContext, Failure

from penumo_assets.assets.markdown import text_block
from penumo_assets.resources.compute.spec import JobFailed, JobResult, JobRunner, JobSpec

JOB_TAG = "penumo/job"


def run_job(context: AssetExecutionContext, runner: JobRunner, spec: JobSpec) -> JobResult:
    """Run ``spec``; the run is tagged with the job's name, so that runs can be found by it.

    Raises
    ------
    Failure
        If the program failed. Running it again on the same inputs would fail again, so it is not retried; what
        failed for lack of capacity or by a fault of the service may be.
    """
    with job_failures():
        result = runner.run(context, spec)
    context.instance.add_run_tags(context.run.run_id, {JOB_TAG: result.job_name})
    return result


@contextmanager
def job_failures() -> Iterator[None]:
    """Turn JobFailed into the Failure that `run_job` describes."""
    try:
        yield
    except JobFailed as failed:
        log = text_block(failed.log_tail)
        raise Failure(
            str(failed), metadata={"log_tail": log, **failed.metadata}, allow_retries=failed.passing
        ) from failed
