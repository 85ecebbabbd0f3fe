"""Kill a stage at a random moment, launch it again, and compare with a run that nobody disturbed."""

import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from penumo_assets.resources.compute.spec import bundle_digest
from penumo_assets_tests.trust.installation import VICTIMS, Installation
from penumo_assets_tests.trust.outcome import Outcome
from penumo_assets_tests.trust.stages import STAGES, Stage
from penumo_assets_tests.trust.state import content, differences, listed, named
from penumo_assets_tests.trust.witness import read_notes, watching

MOST_LAUNCHES = 5


@dataclass(frozen=True)
class Expected:
    """What a stage comes to when nobody disturbs it: its content, the objects that nothing names, its seconds."""

    content: dict[str, Any]
    unnamed: frozenset[str]
    seconds: float


class Chain:
    """The installation and its stages, each with the snapshot that it begins from and what it must come to."""

    def __init__(self, installation: Installation, stages: Sequence[str]) -> None:
        self.installation = installation
        self.sources = bundle_digest.__wrapped__()
        self.expected: dict[str, Expected] = {}
        self.wanted = [stage for stage in STAGES if stage.name in stages]
        last = max(STAGES.index(stage) for stage in self.wanted)
        for stage in STAGES[: last + 1]:
            self._establish(stage)

    def _establish(self, stage: Stage) -> None:
        """Twice undisturbed: what the two do not agree on could not be compared."""
        here = self.installation
        here.undisturbed(stage.arrange)
        here.save(stage.name)
        found = [self._reach(stage) for _ in range(2 if stage in self.wanted else 1)]
        if differing := differences(found[0].content, found[-1].content):
            raise RuntimeError(f"two undisturbed runs of {stage.name} differ: {'; '.join(differing[:10])}")
        self.expected[stage.name] = found[-1]

    def _reach(self, stage: Stage) -> Expected:
        here = self.installation
        here.restore(stage.name)
        seconds = here.undisturbed(stage.run)
        return Expected(content(here.store, here.database), frozenset(listed(here.store) - named(here.store)), seconds)

    def disturb(self, stage: Stage, victim: str, share: float) -> Outcome | None:
        """Kill ``victim`` when ``share`` of the stage's time has passed, or as soon as there is one after that.

        None if the stage had ended by then.
        """
        here, moment = self.installation, share * self.expected[stage.name].seconds
        here.restore(stage.name)
        notes = here.notes / "witness.json"
        outcome = Outcome(stage.name, victim, moment)
        with watching(here.store, here.database, notes):
            process = here.launch(stage.run)
            if _has_ended(process, moment):
                return None
            while not here.kill(victim, process):
                if _has_ended(process, 0.05):
                    return None
            _, status = os.waitpid(process, 0)
            if status != 0:
                outcome.launches += 1
                status = run_to_end(here, stage, outcome)
        outcome.looks, outcome.corrupted = read_notes(notes)
        outcome.lost = status != 0
        self.compare(stage, outcome)
        return outcome

    def compare(self, stage: Stage, outcome: Outcome) -> None:
        here, expected = self.installation, self.expected[stage.name]
        if bundle_digest.__wrapped__() != self.sources:
            raise RuntimeError("the sources have changed since the undisturbed runs: begin again and leave them alone")
        outcome.left_over += [f"process: {kind}" for kind in here.end_jobs()]
        if not outcome.lost:
            try:
                found = content(here.store, here.database)
                outcome.corrupted += differences(found, expected.content)[:10]
            except Exception as error:
                outcome.corrupted.append(f"{type(error).__name__}: {error}")
        unnamed = listed(here.store) - named(here.store) - expected.unnamed
        outcome.left_over += [f"object: {key}" for key in sorted(unnamed)]
        outcome.left_over += [f"hidden: {name}" for name in here.hidden()]
        outcome.left_over += [f"scratch: {name}" for name in here.scratch()]

    def kills(self, count: int, seed: int, victims: Sequence[str] = VICTIMS) -> Iterator[Outcome]:
        """``count`` kills, shared out over the stages and the victims, at moments drawn anew for each."""
        chance = random.Random(seed)
        for number in range(count):
            stage = self.wanted[number % len(self.wanted)]
            asked = [victim for victim in stage.victims if victim in victims] or ["runner"]
            victim = asked[number // len(self.wanted) % len(asked)]
            outcome = None
            while outcome is None:  # a stage that was faster than usual has not been disturbed: another moment
                outcome = self.disturb(stage, victim, chance.random())
            yield outcome


def run_to_end(here: Installation, stage: Stage, outcome: Outcome) -> int:
    """Launch the stage until it ends well, but not for ever; the last launch's status."""
    while True:
        _, status = os.waitpid(here.launch(stage.run), 0)
        if status == 0 or outcome.launches > MOST_LAUNCHES:
            return status
        outcome.launches += 1


def _has_ended(process: int, seconds: float) -> bool:
    """Whether the process ends within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, _ = os.waitpid(process, os.WNOHANG)
        if done:
            return True
        time.sleep(0.002)
    return False
