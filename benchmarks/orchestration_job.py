"""What the orchestrator adds to a job's own time on SageMaker: a job that does next to nothing, on the emulator.

The service's own time runs from the job's CreationTime to its end, as its description tells both. Around it the
runner describes earlier attempts, stores documents and manifests, creates the job, polls, reads the log to its end
and fetches the result; that is what is measured, with the settings an installation has.

    python -m benchmarks.orchestration_job
"""

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets_tests.aws.emulator import Emulator, JobScript
from penumo_assets_tests.resources.bench import sagemaker_bench

DEFAULTS = {"poll_seconds": SageMakerSettings.model_fields["poll_seconds"].default}


def measure(jobs: int, own_image: bool) -> list[float]:
    """Overhead in seconds of each of ``jobs`` jobs; the first one loads clients and uploads the sources."""
    emulator, overheads = Emulator().start(), []
    try:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            bench = sagemaker_bench(emulator, Path(folder), patch, **DEFAULTS, **({} if own_image else {"image": ""}))
            for number in range(jobs):
                # Jobs end at any moment between two polls.
                emulator.script(bench.runner.settings.job_name_prefix, JobScript(delay_seconds=0.37 * number))
                started = time.monotonic()
                result = bench.run(partition=str(number))
                spent = time.monotonic() - started
                job = emulator.api.jobs["Processing", result.job_name]
                assert job.finished
                overheads.append(spent - (job.finished - job.created).total_seconds())
    finally:
        emulator.stop()
    return overheads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8, help="jobs per setting (default 8)")
    arguments = parser.parse_args()
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    print(f"{'image':<28}{'first job s':>12}{'median s':>10}{'worst s':>10}")
    for own_image in (True, False):
        # A process of its own: what the other setting has loaded would make its first job cheaper.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            first, *others = pool.submit(measure, arguments.jobs, own_image).result()
        name = "named in the settings" if own_image else "AWS's own, looked up"
        print(f"{name:<28}{first:>12.2f}{statistics.median(others):>10.2f}{max(others):>10.2f}")


if __name__ == "__main__":
    main()
