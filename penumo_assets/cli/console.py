"""What a launch shows in a terminal: counts, reasons and verdicts, instead of every event of Dagster's log.

The whole log stands on the run's page; ``PENUMO_LOG=debug`` shows it in the terminal too.
"""

import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, ClassVar, TextIO

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    DagsterEvent,
    DagsterEventType,
    FloatMetadataValue,
    IntMetadataValue,
    LoggerDefinition,
    TextMetadataValue,
)
from dagster._core.execution.plan.objects import StepFailureData

from penumo_assets.cli.runs import by_a_check, sentence

LOG_VARIABLE = "PENUMO_LOG"
_COUNTED = {"dagster/row_count": "images", "rejected": "rejected", "computed": "computed", "removed": "removed"}
_FOLLOWS = "Dependencies for step"  # what a failed step keeps from running is no reason of its own
_PLAIN = (TextMetadataValue, IntMetadataValue, FloatMetadataValue)  # no pictures, no tables
_ENDS = (DagsterEventType.RUN_SUCCESS, DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED)
_SHOWN = (
    *("architecture", "model_version", "challenger", "stays_a_challenger"),
    *("source", "test_roc_auc", "splits", "report"),
)


def shows_everything() -> bool:
    """Whether PENUMO_LOG asks for the whole log in the terminal."""
    return os.environ.get(LOG_VARIABLE, "").lower() == "debug"


class Console(logging.Handler):
    """Prints one run."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(logging.DEBUG)
        self._stream = stream
        self._passed = 0
        self._not_green: list[str] = []
        self._reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event: DagsterEvent | None = meta.get("dagster_event")
        if event is not None:
            lines = list(self._told(event))
        elif record.levelno >= logging.INFO and _FOLLOWS not in record.getMessage():
            level = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
            lines = [f"  {level}{meta.get('orig_message', record.getMessage())}"]
        else:
            lines = []
        if lines:
            print("\n".join(lines), file=self._stream, flush=True)

    def _told(self, event: DagsterEvent) -> Iterator[str]:
        kind = event.event_type
        if kind is DagsterEventType.ASSET_MATERIALIZATION:
            yield from self._made(event)
        elif kind is DagsterEventType.ASSET_CHECK_EVALUATION:
            self._judge(event.asset_check_evaluation_data)
        elif kind is DagsterEventType.STEP_FAILURE:
            yield from _failure(event.step_failure_data)
        elif kind in _ENDS:
            yield from self._end(kind)

    def _made(self, event: DagsterEvent) -> Iterator[str]:
        materialization = event.step_materialization_data.materialization
        values = {name: item.value for name, item in materialization.metadata.items()}
        counts = [f"{values[name]} {word}" for name, word in _COUNTED.items() if values.get(name) not in (None, "")]
        facts = [f"{name} {values[name]}" for name in _SHOWN if isinstance(values.get(name), str | int | float)]
        of = f" [{materialization.partition}]" if materialization.partition else ""
        yield f"{materialization.asset_key.to_user_string()}{of}: {', '.join(counts + facts) or 'done'}"
        for record in getattr(values.get("gates"), "records", []):
            row = record.data
            yield f"  gate {row['gate']}: {row['status']}: {row['reason']}"
        rows = [record.data for record in getattr(values.get("rejected_by_reason"), "records", [])]
        self._reasons = [f"  {row['reason']} at stage {row['stage']}: {row['files']}" for row in rows] or self._reasons

    def _judge(self, check: AssetCheckEvaluation) -> None:
        if check.passed:
            self._passed += 1
        else:
            weight = "warning" if check.severity is AssetCheckSeverity.WARN else "error"
            self._not_green.append(
                f"  {check.check_name} on {check.asset_key.to_user_string()} ({weight}): {reason(check)}"
            )

    def _end(self, kind: DagsterEventType) -> Iterator[str]:
        if self._reasons:
            yield "rejected files (`penumo rejected COHORT` names them):"
            yield from self._reasons
        yield f"checks: {self._passed} passed, {len(self._not_green)} did not" + (":" if self._not_green else "")
        yield from self._not_green
        word = {DagsterEventType.RUN_SUCCESS: "succeeded", DagsterEventType.RUN_CANCELED: "was cancelled"}
        yield f"the run {word.get(kind, 'failed; its page in Dagster has the whole log')}"


class Ending(logging.Handler):
    """Dagster's own log, ended in the words of `penumo launch`: for `dg launch` and whatever else launches runs.

    The instance's dagster.yaml names it. Handlers see a record before it is printed and after it is stored: this one
    takes the stack trace from what a user can mend, and puts what became of the run where its last event is printed.
    Dagster makes a handler anew for every step, so what a run has shown is kept by the class.
    """

    _runs: ClassVar[dict[str, tuple[Console, io.StringIO]]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event: DagsterEvent | None = meta.get("dagster_event")
        if event is None:
            return
        if meta["run_id"] not in self._runs:
            text = io.StringIO()
            self._runs[meta["run_id"]] = (Console(text), text)
        console, text = self._runs[meta["run_id"]]
        console.emit(record)
        if event.event_type in _ENDS:
            del self._runs[meta["run_id"]]
            record.msg = f"{meta['orig_message']}\n\n{text.getvalue()}"
        elif event.is_step_failure:
            record.msg = "\n".join(_failure(event.step_failure_data))


def reason(check: AssetCheckEvaluation) -> str:
    """Why a check did not pass, from what stands on its page."""
    if check.description:
        return check.description
    return ", ".join(f"{name} {item.value}" for name, item in check.metadata.items() if isinstance(item, _PLAIN))


def _failure(failure: StepFailureData) -> Iterator[str]:
    """The reason that a user can act on; a fault of ours keeps its stack trace."""
    if said := sentence(failure):
        yield f"failed: {said}"
    elif by_a_check(failure):
        yield "stopped: a blocking check did not pass"
    elif failure.error:
        yield failure.error.to_string()


def console_logger() -> LoggerDefinition:
    """Dagster's logger `console` for one launch. Dagster asks for it at every step: all write to one `Console`."""
    own = logging.Logger("penumo", logging.DEBUG)
    own.addHandler(Console(sys.stdout))
    return LoggerDefinition(lambda _: own)
