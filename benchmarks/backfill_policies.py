"""What a backfill policy would save, and what it would cost: a run per cohort, ten cohorts in a run, all in one.

The cohorts' jobs take no time, so what is compared is orchestration alone, as it weighs on the lightest assets. One
cohort of each backfill is poisoned (its labels.csv is no table): what it does to the others is the other half. Every
run is a process, through Dagster's daemon on the shipped instance settings.

    python -m benchmarks.backfill_policies --cohorts 20
"""

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from dagster import AssetExecutionContext, AssetKey, BackfillPolicy, Definitions, MaterializeResult, multi_asset

from benchmarks.orchestration import installation
from penumo_assets.assets.prepare import PrepareLaunchpad, prepare_cohort
from penumo_assets.definitions import ASSETS, build_definitions
from penumo_assets.jobs.manifest import STAGE_ASSETS
from penumo_assets.partitions import cohorts
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.storage.root import Storage
from penumo_assets_tests.backfills.daemon import running_daemon
from penumo_assets_tests.backfills.stub_jobs import StubJobRunner, png

POLICIES: Mapping[str, BackfillPolicy | None] = {
    "none": None,
    "multi_run(1)": BackfillPolicy.multi_run(1),
    "multi_run(10)": BackfillPolicy.multi_run(10),
    "single_run": BackfillPolicy.single_run(),
}
CHOICE = "BENCHMARK_BACKFILL_POLICY"


class OneCohort:
    """A run's context as it is where the run has this cohort alone."""

    def __init__(self, context: AssetExecutionContext, cohort: str) -> None:
        self._context = context
        self.partition_key = cohort

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def under(policy: BackfillPolicy | None) -> Any:
    """`prepare_cohort` under a policy: the cohorts of a run one after the other, and one event per asset for all."""
    prepare: Any = prepare_cohort.op.compute_fn.decorated_fn  # type: ignore[union-attr]

    @multi_asset(
        name="prepare_cohort",
        specs=list(prepare_cohort.specs),
        can_subset=True,
        partitions_def=cohorts,
        pool=prepare_cohort.op.pool,
        backfill_policy=policy,
    )
    def prepare_range(
        context: AssetExecutionContext,
        config: PrepareLaunchpad,  # type: ignore[valid-type]
        storage: Storage,
        jobs: JobRunner,
    ) -> Iterator[MaterializeResult]:
        made: dict[Any, MaterializeResult] = {}
        for cohort in context.partition_keys:
            made |= {item.asset_key: item for item in prepare(OneCohort(context, cohort), config, storage, jobs)}
        yield from made.values()

    return prepare_range


def definitions() -> Definitions:
    """The application with stub jobs, and `prepare_cohort` under the policy that the environment names."""
    storage = Storage(root=os.environ["PENUMO_ROOT"])
    whole = build_definitions({"storage": storage, "jobs": StubJobRunner(storage=storage)})
    chosen = under(POLICIES[os.environ[CHOICE]])
    assets = [chosen if item is prepare_cohort else item for item in ASSETS]
    return Definitions(assets, asset_checks=whole.asset_checks, resources=whole.resources, executor=whole.executor)


def measure(policy: str, count: int) -> None:
    """One backfill of ``count`` cohorts, the middle one poisoned."""
    names = [f"ward-{number:03d}" for number in range(count)]
    poisoned = names[count // 2]
    with installation() as root:
        os.environ[CHOICE] = policy
        store = Storage(root=str(root)).store
        for number, name in enumerate(names):
            store.write(f"landing/{name}/a.png", png(number))
        store.write(f"landing/{poisoned}/labels.csv", b"\xff\xfe no table")
        with running_daemon("benchmarks.backfill_policies", in_this_process=False) as daemon:
            daemon.instance.add_dynamic_partitions(str(cohorts.name), names)
            started = time.monotonic()
            backfill = daemon.backfill(STAGE_ASSETS, names)
            daemon.finish(backfill)
            spent = time.monotonic() - started
            runs = len(daemon.runs(backfill))
            filled = set(daemon.instance.get_materialized_partitions(AssetKey("npz_tensors")))
    assert poisoned not in filled
    lost = count - 1 - len(filled)
    print(
        f"{policy:>14}: {runs} runs, {spent:.0f} s, {spent / count:.2f} s per cohort; "
        f"one bad cohort took {lost} of {count - 1} good ones with it"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=20)
    options = parser.parse_args()
    for policy in POLICIES:
        measure(policy, options.cohorts)
    print(f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (this benchmark's included)")


if CHOICE in os.environ:  # set for the daemon's code server, which loads this module, and never for a person
    defs = definitions()

if __name__ == "__main__":
    main()
