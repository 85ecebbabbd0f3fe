"""What orchestration costs beside the work: the landing sensors, a run, and a backfill.

Sensors run as Dagster calls them, against a made-up bucket and queue in a process of their own (with a time before
each answer). Runs and backfills go through Dagster's daemon on the shipped instance settings, every run a process.

    python -m benchmarks.orchestration --listing --events --runs --backfill
    python -m benchmarks.orchestration --runs --before dde056e    # and an older version's launches, in turn
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import AssetKey, DagsterEventType, DagsterInstance, DagsterRun, SensorResult, build_sensor_context

from benchmarks.orchestration_aws import BUCKET, QUEUE
from benchmarks.orchestration_graph import graph
from penumo_assets.jobs.manifest import STAGE_ASSETS
from penumo_assets.partitions import cohorts
from penumo_assets.phantoms import write_cohort
from penumo_assets.resources.storage.root import Storage
from penumo_assets_tests.backfills.daemon import Daemon, running_daemon
from penumo_assets_tests.backfills.stub_jobs import png
from penumo_assets_tests.memory import peak_mib

Tick = Callable[[str | None], SensorResult]


@contextmanager
def aws(number: int, objects: int, latency: float) -> Iterator[None]:
    """The services of `benchmarks.orchestration_aws`, and the environment that leads to them."""
    command = [sys.executable, "-m", "benchmarks.orchestration_aws", str(number), str(objects), str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": endpoint,
        "PENUMO_EVENTS_QUEUE_URL": f"{endpoint}/123456789012/{QUEUE}",
        "PENUMO_SETTLE_SECONDS": "0",
    }
    try:
        yield
    finally:
        process.kill()
        process.wait()


def sweep(tick: Tick, cursor: str | None, done: Callable[[str], bool]) -> tuple[str, list[str], list[float]]:
    """Ticks until ``done(cursor)``: the cursor, the cohorts that were launched, and the seconds of each tick."""
    launched, seconds = [], []
    while True:
        started = time.monotonic()
        result = tick(cursor)
        seconds.append(time.monotonic() - started)
        cursor = result.cursor
        assert cursor is not None, result.skip_reason
        launched += [str(request.partition_key) for request in result.run_requests or []]
        if done(cursor):
            return cursor, launched, seconds


def sensor_tick(sensor: Any, instance: DagsterInstance) -> Tick:
    storage = Storage(root=f"s3://{BUCKET}")

    def tick(cursor: str | None) -> SensorResult:
        return sensor(build_sensor_context(instance=instance, cursor=cursor, resources={"storage": storage}))

    return tick


def listing(number: int, objects: int, latency: float) -> None:
    """A first sweep launches every cohort once; after changes to some, another launches those and no other."""
    import boto3

    from penumo_assets.sensors.listing import landing_listing

    with aws(number, objects, latency), DagsterInstance.ephemeral() as instance:
        tick = sensor_tick(landing_listing, instance)

        def at_the_end(cursor: str) -> bool:
            return not any(json.loads(cursor)["position"])

        before = peak_mib()
        cursor, first, ticks = sweep(tick, None, at_the_end)
        names = [f"cohort-{item:04d}" for item in range(number)]
        assert sorted(first) == names, "a cohort was missed or launched twice"
        print(f"listing: {number * objects:,} objects in {number:,} cohorts, {latency * 1000:.0f} ms before each page")
        print(f"  first sweep: {len(ticks)} ticks, longest {max(ticks):.1f} s, together {sum(ticks):.0f} s")
        changed = random.Random(0).sample(names, min(50, number))
        client = boto3.client("s3")
        for position, name in enumerate(changed):
            key = f"landing/{name}/images/{position % objects:04d}.dcm"
            if position % 3 == 0:
                client.put_object(Bucket=BUCKET, Key=key, Body=b"rewritten")
            elif position % 3 == 1:
                client.delete_object(Bucket=BUCKET, Key=key)
            else:
                client.put_object(Bucket=BUCKET, Key=f"landing/{name}/late.dcm", Body=b"late")
        cursor, second, ticks = sweep(tick, cursor, at_the_end)
        assert sorted(second) == sorted(changed), "a change was missed, or a cohort ran without one"
        print(f"  sweep after {len(changed)} changes: {len(ticks)} ticks, longest {max(ticks):.1f} s, nothing missed")
        print(f"  cursor {len(cursor) / 1024:.0f} KiB, peak memory {before:.0f} to {peak_mib():.0f} MiB")


def events(count: int, latency: float) -> None:
    """Events of 100 cohorts, every twentieth delivered twice: each cohort runs once."""
    import boto3

    from penumo_assets.sensors.events import landing_events

    with aws(100, 10, latency), DagsterInstance.ephemeral() as instance:
        client, url = boto3.client("sqs"), os.environ["PENUMO_EVENTS_QUEUE_URL"]
        bodies = [_event(item) for item in range(count) for _ in range(2 if item % 20 == 0 else 1)]
        for start in range(0, len(bodies), 10):
            entries = [{"Id": str(start + n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
            client.send_message_batch(QueueUrl=url, Entries=entries)

        def is_empty(_: str) -> bool:
            attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            return not any(int(value) for value in attributes.values())

        tick = sensor_tick(landing_events, instance)
        os.environ["PENUMO_SETTLE_SECONDS"] = "3600"  # while the events come, no cohort settles
        cursor, early, ticks = sweep(tick, None, is_empty)
        os.environ["PENUMO_SETTLE_SECONDS"] = "0"
        _, launched, last = sweep(tick, cursor, lambda _: True)
        ticks += last
        assert not early
        assert sorted(launched) == [f"cohort-{item:04d}" for item in range(100)], "a cohort ran twice or never"
        print(f"events: {len(bodies):,} messages, {latency * 1000:.0f} ms before each answer, all taken and deleted")
        print(f"  {len(bodies) / sum(ticks):,.0f} events/s over {len(ticks)} ticks, longest {max(ticks):.1f} s")


def _event(item: int) -> str:
    key = f"landing/cohort-{item % 100:04d}/images/{item:08d}.dcm"
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}, "object": {"key": key, "size": 1}}}
    return json.dumps({"Records": [record | {"eventVersion": "2.1", "awsRegion": "eu-central-1"}]})


def runs(count: int) -> None:
    """Cohorts of six phantoms one after the other, with real jobs: what a run takes beside its job."""
    with installation() as root, running_daemon("penumo_assets.definitions", in_this_process=False) as daemon:
        names = [f"ward-{item}" for item in range(count)]
        for seed, name in enumerate(names):
            write_cohort(root / "landing" / name, name, patients=6, seed=seed, dicom=False, broken=False)
        daemon.instance.add_dynamic_partitions(str(cohorts.name), names)
        overheads = []
        for name in names:
            (run,) = _finished(daemon, [name])
            overheads.append(_seconds(daemon, run) - _job_seconds(daemon, name))
        middle = statistics.median(overheads)
        print(f"runs: {count}, from launch to end without the job: median {middle:.1f} s, worst {max(overheads):.1f} s")


def processor_seconds() -> float:
    """User and system time of this process and of those that it started and that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def backfill(count: int) -> None:
    """One backfill of cohorts whose jobs take no time: all that is left is orchestration."""
    before = processor_seconds()
    with (
        installation() as root,
        running_daemon("penumo_assets_tests.backfills.stub_jobs", in_this_process=False) as daemon,
    ):
        names = [f"ward-{item:03d}" for item in range(count)]
        store = Storage(root=str(root)).store
        for number, name in enumerate(names):
            store.write(f"landing/{name}/a.png", png(number))
        daemon.instance.add_dynamic_partitions(str(cohorts.name), names)
        started = time.monotonic()
        done = _finished(daemon, names)
        spent = time.monotonic() - started
        assert len(done) == count
    # Processor time of Dagster's code server and of the runs it started is known when the server has ended.
    used = processor_seconds() - before
    print(f"backfill: {count} cohorts in {spent:.0f} s, {spent / count:.2f} s each; CPU {used / count:.2f} s each")


@contextmanager
def installation() -> Iterator[Path]:
    """A storage root of its own, and nothing of this machine's settings."""
    for name in [name for name in os.environ if name.startswith(("PENUMO_", "AWS_", "DAGSTER_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PENUMO_ROOT"] = folder
        yield Path(folder)


def _finished(daemon: Daemon, names: Sequence[str]) -> list[DagsterRun]:
    started = daemon.backfill(STAGE_ASSETS, names)
    assert daemon.finish(started) == "COMPLETED_SUCCESS"
    return daemon.runs(started)


def _seconds(daemon: Daemon, run: DagsterRun) -> float:
    (starting,) = daemon.instance.get_records_for_run(run.run_id, of_type=DagsterEventType.RUN_STARTING).records
    record = daemon.instance.get_run_record_by_id(run.run_id)
    assert record is not None
    assert record.end_time is not None
    return record.end_time - starting.timestamp


def _job_seconds(daemon: Daemon, cohort: str) -> float:
    events = daemon.instance.fetch_materializations(AssetKey("npz_tensors"), limit=1).records
    (event,) = [record.asset_materialization for record in events if record.partition_key == cohort]
    assert event is not None
    return float(event.metadata["job_seconds"].value)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("listing", "events", "runs", "backfill"):
        parser.add_argument(f"--{name}", action="store_true", help=f"only the parts named; here: {name}")
    parser.add_argument("--cohorts", type=int, default=1000, help="cohorts to list (default 1000)")
    parser.add_argument("--objects", type=int, default=1000, help="objects in each of them (default 1000)")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before each answer (default 0.02)")
    parser.add_argument("--run-count", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="of launching the whole graph (default 3)")
    parser.add_argument("--before", default="", metavar="COMMIT", help="compare the whole graph with this version's")
    parser.add_argument("--backfill-size", type=int, default=50)
    options = parser.parse_args()
    everything = not (options.listing or options.events or options.runs or options.backfill)
    if options.listing or everything:
        listing(options.cohorts, options.objects, options.latency)
    if options.events or everything:
        events(options.messages, options.latency)
    if options.runs or everything:
        runs(options.run_count)
        with installation():
            graph(options.rounds, options.before)
    if options.backfill or everything:
        backfill(options.backfill_size)
    load = os.getloadavg()[0]
    print(f"machine: {os.cpu_count()} cores, load {load:.1f} (this benchmark's included)")


if __name__ == "__main__":
    main()
