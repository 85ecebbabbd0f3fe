"""Prepare a cohort in one pass: decode, letterbox, segment, enhance, pack.

Every image is decoded once and every intermediate written once. Batches of images stream through worker
processes, one per core, each of which takes its batch through all stages on one thread; a bounded number is in
memory at any time, whatever the size of the cohort. A bad image becomes a rejected row; the rest goes on.

Inputs: ``work`` (config.json, work.jsonl), ``landing`` (images, ground-truth masks), ``weights`` (optional
lung segmenter), and stored outputs ``raw``, ``masks``, ``preprocessed`` of images that start half-way.
Outputs: ``raw``, ``masks``, ``preprocessed``, ``npz`` and ``rows`` (rows-*.jsonl, result.json). What an attempt that
failed has finished is not computed again: see ``rows``.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.contract import (
    KEPT,
    cores,
    hosts,
    processing_input,
    processing_output,
    run_program,
    share,
    write_result,
)
from penumo_assets.jobs.prepare.process_map import Workers, map_batches
from penumo_assets.jobs.prepare.rows import RowFiles, unfinished
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
    host, names = hosts()
    mine = share(work_lines((processing_input("work") / "work.jsonl").read_bytes()), names.index(host), len(names))
    lines = unfinished(mine, processing_input(KEPT))
    if len(lines) < len(mine):
        log.info("attempts before have finished %d of %d images", len(mine) - len(lines), len(mine))
    key_from_environment()  # refuses an unusable key before anything is computed
    started = time.perf_counter()
    rejected, seconds = 0, dict.fromkeys(("raw", "segment", "masks", "preprocessed", "npz"), 0.0)
    with RowFiles(processing_output("rows"), host) as rows:
        for row, spent in map_batches(_workers(config, lines, arguments), _batches(lines, arguments)):
            rows.add(row)
            rejected += row.status == "rejected"
            for stage, value in spent.items():
                seconds[stage] += value
            if rows.count % 50 == 0 or rows.count == len(lines):
                log.info("prepared %d of %d images in %.1f s", rows.count, len(lines), time.perf_counter() - started)
    values = {
        "images": rows.count,
        "rejected": rejected,
        "seconds": round(time.perf_counter() - started, 3),
        "stage_seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
    }
    write_result(processing_output("rows"), "prepare", values)


def _workers(config: PrepareConfig, lines: list[bytes], arguments: argparse.Namespace) -> Workers[WorkItem, Done]:
    count = max(1, min(arguments.workers, -(-len(lines) // arguments.batch_size)))
    masks = any("masks" in parse_item(line).compute for line in lines)
    weights = processing_input("weights") / "lung_unet.safetensors" if masks else None
    return Workers(
        function=prepare,
        start=start,
        # The server that forks the workers may have an older environment than this process.
        arguments=(dict(os.environ), config, weights, max(1, arguments.workers // count)),
        crashed=_crashed,
        count=count,
        preload=("penumo_assets.jobs.prepare.stages",),
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8, help="images segmented together (default 8)")
    parser.add_argument("--workers", type=int, default=cores(), help="worker processes (default: one per core)")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the rows so far are written first
    run_program(main)
