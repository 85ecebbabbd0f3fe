"""The prepare job against a plain script and against MONAI, in one run: time, processor time, memory, stages.

    python benchmarks/prepare.py                                  # everything, about five minutes
    python benchmarks/prepare.py --formats png --tasks tensors    # a part of it
    python benchmarks/prepare.py --data FOLDER --formats jpeg     # real JPEG files instead of phantoms
    python benchmarks/prepare.py --memory                         # peak memory for 200 and for 2,000 images
    python benchmarks/prepare.py --npz                            # size, time and loader time per NPZ compression

Contenders: (a) the script that an engineer would write, one image at a time; (b) MONAI's transforms; both as one
process and as many as the job has; (c) the job's own program, through its own entry. Tasks:

files      from a file to the full-size raw PNG, the enhanced PNG and the tensor, masks given (the job's defaults)
tensors    (a) and (b) write tensors alone; the job still writes everything, DICOM with decode.reduce_to 512
segmented  files, with lung masks made by the package's segmenter in every contender

The contenders take turns; figures are medians over the rounds. (a) and (b) are timed behind imports and a first
image; of the job, the time for few images is subtracted from the time for many, so that neither has its start in it.
MONAI is no dependency of the package: `pip install monai==1.6.1 --no-deps`.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from prepare_inputs import FORMATS, WINDOW_CENTER, WINDOW_WIDTH, Film, lay_out_job, make_films
from prepare_job import clear_outputs, run_job
from prepare_parts import compare_outputs, npz_table, parts_of

from penumo_assets.configs.prepare import DecodeConfig, EnhanceConfig, PrepareConfig

TASKS = ("files", "tensors", "segmented")
REDUCED_TO = 512
DEFAULT_TASKS = {"jpeg": TASKS, "png": TASKS[:2], "dicom": TASKS[:1], "jpeg2000": TASKS[:1]}
# Images per timing: about a second of work each.
COUNTS = {"jpeg": 24, "png": 16, "dicom": 16, "jpeg2000": 4}
JOB_COUNTS = {"jpeg": (16, 96), "png": (16, 80), "dicom": (16, 80), "jpeg2000": (16, 48)}


@dataclass(frozen=True)
class Contest:
    """One format and one task: its films, its folder, and how to run each contender once."""

    kind: str
    task: str
    films: list[Film]
    folder: Path
    workers: int

    @property
    def config(self) -> PrepareConfig:
        # JPEG and PNG are kept as they landed, and a reduced picture would have to be written anew.
        reduced = self.task == "tensors" and FORMATS[self.kind] == ".dcm"
        decode = DecodeConfig(reduce_to=REDUCED_TO if reduced else None)
        return PrepareConfig(decode=decode, enhance=EnhanceConfig(keep_aspect=True))  # as the baselines crop

    @property
    def segment(self) -> bool:
        return self.task == "segmented"

    def baseline(self, name: str, workers: int) -> "Baseline":
        """A baseline's process, ready to work."""
        count = COUNTS[self.kind] // (2 if self.segment else 1) // (2 if name == "monai" else 1)
        output = self.folder / f"{name}-{workers}"
        output.mkdir(exist_ok=True)
        films = [self.films[index % len(self.films)] for index in range(max(count, len(self.films)))]
        images = [[str(film.path), str(film.mask), str(output / film.path.stem)] for film in films]
        window = [WINDOW_CENTER - 0.5 - (WINDOW_WIDTH - 1) / 2, WINDOW_CENTER - 0.5 + (WINDOW_WIDTH - 1) / 2]
        task: dict[str, Any] = {"images": images, "workers": workers, "files": self.task != "tensors"}
        task |= {"segment": self.segment, "format": self.kind, "window": window}
        task |= {"threads": self.workers if workers == 1 else 1}
        (output / "task.json").write_text(json.dumps(task))
        return Baseline(name, output)

    def job(self) -> dict[str, Any]:
        """Seconds, processor seconds and stages per image of the job, without its start."""
        few, many = (run_job(self._laid_out(count), self.workers) for count in JOB_COUNTS[self.kind])
        images = many.images - few.images
        stages = {stage: (spent - few.stage_seconds[stage]) / images for stage, spent in many.stage_seconds.items()}
        return {
            "seconds": (many.seconds - few.seconds) / images,
            "cpu": (many.cpu - few.cpu) / images,
            "start": few.seconds - few.images * (many.seconds - few.seconds) / images,
            "stages": stages,
        }

    def _laid_out(self, count: int) -> Path:
        root = self.folder / f"job-{count}"
        if not root.exists():
            lay_out_job(root, self.films, count, self.config, segment=self.segment)
        clear_outputs(root)
        return root


class Baseline:
    """A baseline in a process of its own, which waits until it is its turn."""

    def __init__(self, name: str, folder: Path) -> None:
        program = str(Path(__file__).with_name("prepare_baselines.py"))
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, program, name, str(folder / "task.json")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._answer()

    def measure(self) -> dict[str, float]:
        """Seconds and processor seconds per image, of one round."""
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return json.loads(self._answer())

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a baseline failed: {self.log.read_text()[-2000:]}")
        return line


def contest(kind: str, task: str, arguments: argparse.Namespace, folder: Path) -> None:
    films = make_films(arguments.folder / kind, kind, arguments.films, arguments.side, arguments.data)
    if not films:
        print(f"\n{kind}: no such files below {arguments.data}")
        return
    here = Contest(kind, task, films, folder, arguments.workers)
    baselines = ["script"] + (["monai"] if arguments.monai else [])
    runs: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    waiting: dict[tuple[str, int], Baseline] = {}
    try:
        for name in baselines:
            for workers in sorted({1, arguments.workers}):
                waiting[name, workers] = here.baseline(name, workers)
        for _ in range(arguments.rounds):
            for key, baseline in waiting.items():
                runs[key].append(baseline.measure())
            runs["job", arguments.workers].append(here.job())
    finally:
        for baseline in waiting.values():
            baseline.stop()
    _print_contest(here, runs, parts_of(here.films, here.config))
    for name in baselines:
        print(f"  tensors of the job and of {name}: {compare_outputs(here.films, here.folder, name)}")


def _print_contest(here: Contest, runs: dict[tuple[str, int], list[dict[str, Any]]], parts: dict[str, float]) -> None:
    def median(key: tuple[str, int], field: str) -> float:
        return statistics.median(run[field] for run in runs[key])

    job = "job", here.workers
    print(f"\n{here.kind}, {here.task}: medians of {len(runs[job])} rounds, ms per image")
    print(
        f"  {'contender':<10}{'processes':>10}{'wall':>9}{'CPU':>9}{'images/s':>10}{'job is faster':>20}{'in CPU':>8}"
    )
    for key in runs:
        wall, cpu = 1000 * median(key, "seconds"), 1000 * median(key, "cpu")
        line = f"  {key[0]:<10}{key[1]:>10}{wall:>9.1f}{cpu:>9.1f}{1000 / wall:>10.1f}"
        if key != job:
            # Contenders of one round ran under the same load: the median of their ratios, not the ratio of medians.
            ratios = [run["seconds"] / own["seconds"] for run, own in zip(runs[key], runs[job], strict=True)]
            spread = f"{statistics.median(ratios):.1f}x ({min(ratios):.1f}-{max(ratios):.1f})"
            line += f"{spread:>20}{cpu / (1000 * median(job, 'cpu')):>7.1f}x"
        print(line)
    kinds = runs[job][0]["stages"]
    stages = {stage: 1000 * statistics.median(run["stages"][stage] for run in runs[job]) for stage in kinds}
    print("  stages of the job, CPU: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in stages.items() if spent))
    print("  parts, CPU, one thread: " + ", ".join(f"{part} {1000 * spent:.1f}" for part, spent in parts.items()))
    floor = 1000 * sum(spent for part, spent in parts.items() if part.startswith(("decode", "encode")))
    own = 1000 * median(job, "cpu") - stages["segment"] - stages["masks"]
    print(f"  floor: decode and encode alone {floor:.1f}; the job's CPU but for masks is {own / floor:.2f} times that")
    print(f"  start of the job {median(job, 'start'):.1f} s")


def memory(arguments: argparse.Namespace, folder: Path) -> None:
    """Peak memory of the job, summed over its processes, for few and for many images of a tenth of the usual size."""
    films = make_films(arguments.folder / "png-small", "png", arguments.films, 640, None)
    print(f"peak memory (PSS of all processes), 640x640 PNG, {arguments.workers} workers, without segmentation:")
    peaks = {}
    for count in (200, 2000):
        root = folder / f"memory-{count}"
        lay_out_job(root, films, count, PrepareConfig(), segment=False)
        peaks[count] = run_job(root, arguments.workers, sample_memory=True).peak_mib
        print(f"  {count:>5} images  {peaks[count]:7.1f} MiB")
        shutil.rmtree(root)
    print(f"  ratio {peaks[2000] / peaks[200]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, help="default: files for all, tensors for JPEG and PNG, segmented for JPEG"
    )
    parser.add_argument("--rounds", type=int, default=5, help="alternations (default 5)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, default=2000, help="side of the phantoms in pixels (default 2000)")
    parser.add_argument("--films", type=int, default=4, help="different films per format (default 4)")
    parser.add_argument("--data", type=Path, help="take PNG or JPEG files from this folder instead of phantoms")
    parser.add_argument("--folder", type=Path, help="keep the inputs here for the next run")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    parser.add_argument("--npz", action="store_true", help="measure NPZ compressions instead")
    arguments = parser.parse_args()
    arguments.monai = importlib.util.find_spec("monai") is not None
    with tempfile.TemporaryDirectory(prefix="prepare-") as temporary:
        scratch = Path(temporary)
        arguments.folder = arguments.folder or scratch / "inputs"
        if arguments.memory:
            memory(arguments, scratch)
        elif arguments.npz:
            npz_table(make_films(arguments.folder / "png", "png", arguments.films, 1000, None))
        else:
            if not arguments.monai:
                print("MONAI is not installed, (b) is left out: pip install monai==1.6.1 --no-deps")
            for kind in arguments.formats:
                for task in arguments.tasks or DEFAULT_TASKS[kind]:
                    with tempfile.TemporaryDirectory(dir=scratch) as folder:
                        contest(kind, task, arguments, Path(folder))


if __name__ == "__main__":
    main()
