"""Prepare a cohort in one pass: decode, letterbox, segment, enhance, pack.

Every image is decoded once and every intermediate written once. Batches of images stream through worker
processes, one per core, each of which takes its batch through all stages on one thread; a bounded number is in
memory at any time, whatever the size of the cohort. A bad image becomes a rejected row; the rest goes on.

Inputs: ``work`` (config.json, work.jsonl), ``landing`` (images, ground-truth masks), ``weights`` (optional
lung segmenter), and stored outputs ``raw``, ``masks``, ``preprocessed`` of images that start half-way.
Outputs: ``raw``, ``masks``, ``preprocessed``, ``npz`` and ``rows`` (rows-{host}.jsonl, result.json).
"""

import argparse
import contextlib
import logging
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.contract import (
    cores,
    hosts,
    processing_input,
    processing_output,
    run_program,
    write_atomic,
    write_result,
)
from penumo_assets.jobs.manifest import dump_row
from penumo_assets.jobs.prepare.process_map import Workers, map_batches
from penumo_assets.jobs.prepare.work import (
    WorkItem,
    drop_rejected_stages,
    key_from_environment,
    parse_item,
    work_lines,
)
from penumo_assets.jobs.prepare.worker import Done, prepare, start

log = logging.getLogger("prepare")


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    config = PrepareConfig.from_yaml(processing_input("work") / "config.json")
    lines = _share(work_lines((processing_input("work") / "work.jsonl").read_bytes()))
    key_from_environment()  # refuses an unusable key before anything is computed
    started = time.perf_counter()
    rows: dict[str, bytes] = {}
    rejected, seconds = 0, dict.fromkeys(("raw", "segment", "masks", "preprocessed", "npz"), 0.0)
    for row, spent in map_batches(_workers(config, lines, arguments), _batches(lines, arguments)):
        rows[row.source] = dump_row(row)
        rejected += row.status == "rejected"
        for stage, value in spent.items():
            seconds[stage] += value
        if len(rows) % 50 == 0 or len(rows) == len(lines):
            log.info("prepared %d of %d images in %.1f s", len(rows), len(lines), time.perf_counter() - started)
    output = processing_output("rows")
    write_atomic(output / f"rows-{hosts()[0]}.jsonl", b"".join(rows[source] for source in sorted(rows)))
    values = {
        "images": len(rows),
        "rejected": rejected,
        "seconds": round(time.perf_counter() - started, 3),
        "stage_seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
    }
    write_result(output, "prepare", values)


def _workers(config: PrepareConfig, lines: list[bytes], arguments: argparse.Namespace) -> Workers[WorkItem, Done]:
    count = max(1, min(arguments.workers, -(-len(lines) // arguments.batch_size)))
    masks = any("masks" in parse_item(line).compute for line in lines)
    weights = processing_input("weights") / "lung_unet.safetensors" if masks else None
    stages = "penumo_assets.jobs.prepare.masks" if masks else "penumo_assets.jobs.prepare.stages"
    return Workers(
        function=prepare,
        start=start,
        # The server that forks the workers may have an older environment than this process.
        arguments=(dict(os.environ), config, weights, max(1, arguments.workers // count)),
        crashed=_crashed,
        count=count,
        preload=(stages,),
    )


def _crashed(item: WorkItem) -> Done:
    stage = item.compute[0]
    item.row.reject(stage, "unexpected_error", f"the process that worked on it ended in stage {stage} or later")
    drop_rejected_stages(item)
    log.error("image %s took its worker process down", item.row.image_id)
    return item.row, {}


def _batches(lines: list[bytes], arguments: argparse.Namespace) -> Iterator[list[WorkItem]]:
    """Batches of the given size, smaller for few images, so that all workers have some until the end."""
    size = min(arguments.batch_size, max(1, len(lines) // (4 * arguments.workers)))
    remaining = map(parse_item, lines)
    while batch := list(islice(remaining, size)):
        for item in batch:
            _read_ahead(processing_input("landing") / item.landed, item)
        yield batch


def _read_ahead(path: Path, item: WorkItem) -> None:
    """Ask the system to fetch a file that a worker will read soon; it lies in no process's memory."""
    if "raw" in item.compute and hasattr(os, "posix_fadvise"):
        # What cannot be read ahead is read later, and the stage that fails at it does not name the file.
        with contextlib.suppress(OSError), open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _share(lines: list[bytes]) -> list[bytes]:
    """This host's part of the work: every image falls to exactly one host."""
    host, names = hosts()
    return lines[names.index(host) :: len(names)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8, help="images segmented together (default 8)")
    parser.add_argument("--workers", type=int, default=cores(), help="worker processes (default: one per core)")
    return parser


if __name__ == "__main__":
    run_program(main)
