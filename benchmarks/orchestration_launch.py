"""`dagster` with a note of its clocks at every event of a run: `python orchestration_launch.py NOTES asset …`.

NOTES gets JSON: of each event its type, its step, the seconds since the start by the clock and of the processor's time
of this process, and the seconds that a job took. It runs in any version of the application: it imports nothing of it.
"""

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from dagster import DagsterInstance, EventLogEntry

STARTED = psutil.Process().create_time()


def main() -> None:
    notes: list[tuple[Any, ...]] = []
    handle = DagsterInstance.handle_new_event

    def noting(self: DagsterInstance, event: EventLogEntry, **more: Any) -> Any:
        made = event.asset_materialization
        job = made.metadata.get("job_seconds") if made else None
        kind = event.dagster_event_type.name if event.dagster_event_type else ""
        seconds = float(job.value) if job else 0.0  # type: ignore[arg-type]
        notes.append((kind, event.step_key, time.time() - STARTED, time.process_time(), seconds))
        return handle(self, event, **more)

    DagsterInstance.handle_new_event = noting  # type: ignore[method-assign]
    target, sys.argv = Path(sys.argv[1]), ["dagster", *sys.argv[2:]]
    try:
        runpy.run_module("dagster", run_name="__main__", alter_sys=True)
    finally:
        notes.append(("END", None, time.time() - STARTED, time.process_time(), 0.0))
        target.write_text(json.dumps(notes))


if __name__ == "__main__":
    main()
