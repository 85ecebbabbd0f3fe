"""The job's rows, in files that are written while it works: what a failed attempt has finished, the next leaves out."""

import contextlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from penumo_assets.jobs.contract import KEPT_NAMES, write_atomic
from penumo_assets.jobs.manifest import ManifestRow, dump_row, load_rows
from penumo_assets.jobs.prepare.work import WorkItem, parse_item

SECONDS = 30.0  # of work, all that a killed process loses


class RowFiles:
    """A file of rows every `SECONDS`, and one of the rest when the work ends, well or not."""

    def __init__(self, folder: Path, host: str) -> None:
        self.count = 0
        self._folder, self._host = folder, host
        self._waiting: list[bytes] = []
        self._written = time.monotonic()

    def add(self, row: ManifestRow) -> None:
        self.count += 1
        self._waiting.append(dump_row(row))
        if time.monotonic() - self._written >= SECONDS:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            write_atomic(self._folder / f"rows-{time.time_ns()}-{self._host}.jsonl", b"".join(self._waiting))
        self._waiting, self._written = [], time.monotonic()

    def __enter__(self) -> "RowFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():  # a full disk has been told of
            self._write()


def merged(files: Iterable[tuple[str, bytes]]) -> dict[str, ManifestRow]:
    """Rows by source, from files by name; what the later of two files says of an image stands."""
    return {row.source: row for name, data in sorted(files) if name.startswith("rows-") for row in load_rows(data)}


def unfinished(lines: Sequence[bytes], kept: Path) -> list[bytes]:
    """The items, as lines of the work list, that no attempt before has finished: their row, and all that it names."""
    if not kept.exists():
        return list(lines)
    outputs = {output: set(names) for output, names in json.loads((kept / KEPT_NAMES).read_bytes()).items()}
    rows = merged((path.name, path.read_bytes()) for path in kept.iterdir())
    return [line for line in lines if not _is_finished(parse_item(line), rows, outputs)]


def _is_finished(item: WorkItem, rows: dict[str, ManifestRow], outputs: dict[str, set[str]]) -> bool:
    row = rows.get(item.row.source)
    if row is None or (row.status == "rejected" and not row.attempted):  # an unexpected error: worth another try
        return False
    made = [(stage, row.stages[stage].key) for stage in item.compute if stage in row.stages]
    return all(key.removeprefix(f"{stage}/") in outputs[stage] for stage, key in made)
