"""What launches of the whole graph cost beside their jobs, from landed films to predictions; before and after a change.

Each is a process, as on a terminal: `dagster asset materialize`, on the shipped instance settings, with real jobs on
phantoms. An older version runs from a worktree of its own, on the same films, in turn with this one.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dagster import DagsterInstance

from penumo_assets.jobs.manifest import STAGE_ASSETS
from penumo_assets.partitions import cohorts
from penumo_assets.phantoms import write_cohort

CHECKOUT = Path(__file__).parents[1]
LAUNCH = CHECKOUT / "benchmarks" / "orchestration_launch.py"
WARDS = ("ward-0", "ward-1")
PREPARE = ",".join(STAGE_ASSETS)
# Both versions know these names. Phantoms and a minute of training reach no floor that is meant for films.
GATES = ("min_roc_auc_low", "min_sensitivity", "min_specificity", "max_ece", "min_subgroup_roc_auc")
OPEN = dict.fromkeys(GATES) | {"beat_shortcuts": False}
TRAINING = {"epochs": 1, "resolution": 64, "batch_size": 16, "warmup_epochs": 0}
BY_IMAGE = {"prepare_cohort": {"npz": {"filename": "{patient_id}_{image_id}"}}}
LAUNCHES: tuple[tuple[str, str | None, Mapping[str, Any]], ...] = (
    ("lung_segmenter", None, {}),
    *((PREPARE, ward, BY_IMAGE) for ward in WARDS),
    ("training_set", None, {}),
    ("trained_model,evaluation_report", "resnet34", {"trained_model": TRAINING, "evaluation_report": {"gates": OPEN}}),
    ("champion_model", None, {}),
    ("predictions", WARDS[0], {}),
    (PREPARE, WARDS[0], BY_IMAGE),  # nothing has changed: no job
)
OWN = ("starts", "planning", "checks", "engine")
"""Processor time of a launch's process, which does not depend on neighbours: before its run begins and after it has
ended; in steps that make something, whose jobs are processes of their own; in steps that only judge; between steps."""


class Note(NamedTuple):
    """What `benchmarks.orchestration_launch` notes of an event."""

    kind: str
    step: str | None
    clock: float
    processor: float
    job: float


def graph(rounds: int, before: str) -> None:
    """Launch everything ``rounds`` times, in turn with the version of commit ``before`` where one is named."""
    root = Path(os.environ["PENUMO_ROOT"])
    for seed, ward in enumerate(WARDS):
        write_cohort(root / "films" / ward, ward, patients=40, seed=seed, dicom=False, broken=False)
    with versions(root / "before", before) as trees:
        spent: dict[str, list[Counter[str]]] = {name: [] for name in trees}
        for number in range(rounds):
            for name in list(trees)[:: 1 if number % 2 else -1]:
                spent[name].append(_launch_all(trees[name], root / f"{name}-{number}", root / "films"))
    print(f"graph: {len(LAUNCHES)} launches, {rounds} rounds; seconds of all launches together, median (least to most)")
    print(f"  {', '.join(OWN)}: processor time of the launches themselves; the last two by the clock")
    print("\n".join(_table(spent)))


@contextmanager
def versions(folder: Path, before: str) -> Iterator[dict[str, Path]]:
    """The checkouts to run by name, the older one in ``folder`` while it is needed."""
    if not before:
        yield {"now": CHECKOUT}
        return
    git = ["git", "-C", str(CHECKOUT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), before], check=True)
    try:
        yield {"before": folder, "now": CHECKOUT}
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def _launch_all(tree: Path, root: Path, films: Path) -> Counter[str]:
    """Seconds by kind of cost, of all launches by the version in ``tree`` on a root of its own."""
    home = root / "dagster"
    home.mkdir(parents=True)
    shutil.copytree(films, root / "landing")
    shutil.copy(tree / "penumo_assets" / "configs" / "dagster_embedded.yaml", home / "dagster.yaml")
    places = {"PYTHONPATH": str(tree), "PENUMO_ROOT": str(root), "DAGSTER_HOME": str(home)}
    environment = {**os.environ, **places, "PENUMO_DEID_KEY": "a key that opens nothing"}
    with DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions(str(cohorts.name), list(WARDS))
    spent: Counter[str] = Counter()
    for launch in LAUNCHES:
        spent.update(_parts(_launch(*launch, environment)))
    return spent


def _launch(
    selection: str, partition: str | None, config: Mapping[str, Any], environment: Mapping[str, str]
) -> list[Note]:
    """Materialize and wait; returns what `benchmarks.orchestration_launch` notes."""
    root = Path(environment["PENUMO_ROOT"])
    notes, log = root / "notes.json", root / "launch.log"
    command = [sys.executable, str(LAUNCH), str(notes), "asset", "materialize", "-m", "penumo_assets.definitions"]
    command += ["--select", selection, *(["--partition", partition] if partition else [])]
    command += ["--config-json", json.dumps({"ops": {op: {"config": values} for op, values in config.items()}})]
    with log.open("ab") as output:
        done = subprocess.run(command, env=environment, cwd=root, stdout=output, stderr=output, check=False)
    if done.returncode:
        sys.exit(f"{selection} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return [Note(*note) for note in json.loads(notes.read_text())]


def _parts(notes: Sequence[Note]) -> Counter[str]:
    """Seconds of a launch's own processor time by kind of cost, and by the clock with and without its jobs."""
    at = {(note.kind, note.step): note for note in notes}
    began, ended, last = at["RUN_START", None], at["RUN_SUCCESS", None], notes[-1]
    jobs = {note.step: note.job for note in notes if note.kind == "ASSET_MATERIALIZATION"}
    parts: Counter[str] = Counter(starts=began.processor + last.processor - ended.processor)
    for kind, step in list(at):
        if kind == "STEP_START":
            spent = at["STEP_SUCCESS", step].processor - at[kind, step].processor
            parts["planning" if step in jobs else "checks"] += spent
    parts["engine"] = last.processor - sum(parts.values())
    return parts + Counter({"by the clock": last.clock, "without jobs": last.clock - sum(jobs.values())})


def _table(spent: Mapping[str, Sequence[Counter[str]]]) -> Iterator[str]:
    yield "".join([" " * 16, *(f"{name:>22}" for name in spent), "  now/before" if len(spent) > 1 else ""])
    for part in (*OWN, "all of it", "without jobs", "by the clock"):
        series = {name: [_sum(each, part) for each in rounds] for name, rounds in spent.items()}
        cells = [f"{statistics.median(each):8.1f} ({min(each):.1f} to {max(each):.1f})" for each in series.values()]
        ratio = _ratio(series["before"], series["now"]) if "before" in series else ""
        yield "".join([f"  {part:<14}", *(f"{cell:>22}" for cell in cells), ratio])


def _sum(spent: Mapping[str, float], part: str) -> float:
    return sum(spent[name] for name in OWN) if part == "all of it" else spent[part]


def _ratio(before: Sequence[float], now: Sequence[float]) -> str:
    """The median of the rounds' ratios: what disturbs the machine for a while disturbs both of a round."""
    ratios = [b and n / b for b, n in zip(before, now, strict=True)]
    return f"{statistics.median(ratios):8.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
