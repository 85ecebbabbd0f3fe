"""What a long command shows: a line per step, with a bar while it works. Everything else goes to a log file."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

BAR_AFTER_SECONDS = 2.0
_LOOK_SECONDS = 0.3
_TITLE_WIDTH = 38

Measure = Callable[[], int]
"""How much of a step is done by now."""


@contextmanager
def output_to(log: Path) -> Iterator[TextIO]:
    """Send what this process and its children print to ``log``; yields the terminal, or whatever stdout was.

    Below Python, by the file descriptors: C libraries and jobs print too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    with os.fdopen(os.dup(1), "w", buffering=1) as terminal, os.fdopen(os.dup(2), "w") as error:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            yield terminal
        finally:
            _flush()
            os.dup2(terminal.fileno(), 1)
            os.dup2(error.fileno(), 2)


@dataclass
class Step:
    """A step at work; ``note`` becomes the end of its line."""

    note: str = ""


class Story:
    """Numbered steps on a terminal."""

    def __init__(self, terminal: TextIO, steps: int) -> None:
        self.terminal = terminal
        self.steps = steps
        self._number = 0

    def say(self, text: str = "") -> None:
        self.terminal.write(f"{text}\n")

    @contextmanager
    def step(self, title: str, total: int | None = None, measure: Measure | None = None) -> Iterator[Step]:
        """A line with what the step did and how long it took.

        On a terminal a bar stands there while it works: of ``measure()`` out of ``total``, or of the time alone.
        """
        self._number += 1
        name = f"{self._number:>2}/{self.steps} {title:<{_TITLE_WIDTH}}"
        step, started = Step(), time.monotonic()
        with self._bar(name, total, measure):
            yield step
        self.say(f"{name}{time.monotonic() - started:6.0f} s   {step.note}".rstrip())

    @contextmanager
    def _bar(self, name: str, total: int | None, measure: Measure | None) -> Iterator[None]:
        if not self.terminal.isatty():
            yield
            return
        ended = threading.Event()
        shape = "{desc}{elapsed} {bar:24} {n_fmt}/{total_fmt}" if measure else "{desc}{elapsed}"
        bar = tqdm(
            desc=name,
            total=total,
            file=self.terminal,
            leave=False,
            bar_format=shape,
            delay=BAR_AFTER_SECONDS,
            ncols=100,
        )
        watcher = threading.Thread(target=_watch, args=(bar, measure, ended), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            bar.close()


def _watch(bar: tqdm, measure: Measure | None, ended: threading.Event) -> None:
    while not ended.wait(_LOOK_SECONDS):
        if measure is not None:
            bar.n = min(measure(), bar.total or 0)
        bar.refresh()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
