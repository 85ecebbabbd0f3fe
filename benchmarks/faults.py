"""Break a small installation in every way that a machine breaks, launch again, and compare with an undisturbed run.

    python benchmarks/faults.py --kills 200              # SIGKILL at random moments of every stage and the daemon
    python benchmarks/faults.py --families disk          # full and read-only disks (needs the right to mount)
    python benchmarks/faults.py --families store         # a fault at every call to S3 (on loopback) and at every write

Families run side by side, each in a process and an installation of its own. A reader looks at everything throughout.
Ends with a table, and with status 1 if anything was lost or corrupted.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent)]
# Launches are forks of a process that therefore has no threads.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import mlflow  # noqa: E402, F401 - every launch would import it again

from penumo_assets_tests.trust.calls import bucket, walk  # noqa: E402
from penumo_assets_tests.trust.daemon_kills import DaemonTrials  # noqa: E402
from penumo_assets_tests.trust.disk import disturb_disk, small_disk  # noqa: E402
from penumo_assets_tests.trust.folder import walk_writes  # noqa: E402
from penumo_assets_tests.trust.installation import VICTIMS, Installation  # noqa: E402
from penumo_assets_tests.trust.kills import Chain  # noqa: E402
from penumo_assets_tests.trust.outcome import Outcome, table  # noqa: E402
from penumo_assets_tests.trust.stages import STAGES  # noqa: E402

NAMES = [stage.name for stage in STAGES]


def main() -> None:
    arguments = _parser().parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    outcomes: list[Outcome] = []
    broken: list[str] = []
    try:
        for found in side_by_side(folder, arguments, broken):
            outcomes.append(found)
            _tell(len(outcomes), found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if outcomes:
            print(table(outcomes))
    for kind in broken:
        print(f"{kind}: could not go on, so there were fewer faults than were asked for")
    sys.exit(bool(broken) or any(outcome.lost or outcome.corrupted for outcome in outcomes))


def side_by_side(folder: Path, arguments: argparse.Namespace, broken: list[str]) -> Iterator[Outcome]:
    """What each family finds, as it finds it; ``broken`` gets those that end before their last fault."""
    context = multiprocessing.get_context("spawn")
    families: dict[Any, tuple[str, Any]] = {}
    for kind in arguments.families:
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_family, args=(kind, folder / kind, arguments, writer))
        process.start()
        writer.close()
        families[reader] = kind, process
    try:
        while families:
            for reader in wait(list(families)):
                try:
                    yield reader.recv()
                except EOFError:
                    kind, process = families.pop(reader)
                    process.join()
                    broken += [kind] if process.exitcode else []
    finally:
        for _, process in families.values():
            process.terminate()
            process.join()


def _family(kind: str, folder: Path, arguments: argparse.Namespace, writer: Connection) -> None:
    for outcome in FAMILIES[kind](folder, arguments):
        writer.send(outcome)


def kills(folder: Path, arguments: argparse.Namespace) -> Iterator[Outcome]:
    chain = Chain(Installation(folder, folder / "notes"), arguments.stages)
    yield from chain.kills(arguments.kills, arguments.seed, arguments.victims)


def daemons(folder: Path, arguments: argparse.Namespace) -> Iterator[Outcome]:
    yield from DaemonTrials(Installation(folder, folder / "notes")).kills(arguments.daemons, arguments.seed)


def disks(folder: Path, arguments: argparse.Namespace) -> Iterator[Outcome]:
    """Each stage, several times on a disk with less space than it needs, and once on one that may only be read."""
    chance = random.Random(arguments.seed)
    with small_disk(folder / "disk") as disk:
        chain = Chain(Installation(disk / "here", folder / "notes"), arguments.stages)
        for stage in chain.wanted:
            for kind in (*["disk full"] * arguments.full_disks, "read only"):
                yield disturb_disk(chain, disk, stage, kind, chance)


def stores(folder: Path, arguments: argparse.Namespace) -> Iterator[Outcome]:
    folder.mkdir(parents=True)
    yield from walk_writes(folder / "files", arguments.every)
    with bucket(folder) as here:
        yield from walk(here, range(0, here.calls, arguments.every))


FAMILIES = {"kills": kills, "daemon": daemons, "disk": disks, "store": stores}


def _tell(number: int, outcome: Outcome) -> None:
    problems = [*outcome.corrupted, *outcome.unclear, *outcome.left_over, *(["LOST"] if outcome.lost else [])]
    what = f"{outcome.stage}, {outcome.fault} at {outcome.moment:.2f}, launches {outcome.launches}"
    print(f"{number:4} {what}, looks {outcome.looks}" + "".join(f"\n     {text}" for text in problems), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many processes are killed (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which they are")
    parser.add_argument(
        "--families", nargs="+", choices=FAMILIES, default=["kills", "daemon"], help="of faults (default kills daemon)"
    )
    parser.add_argument("--stages", nargs="+", choices=NAMES, default=NAMES, help="disturb only these")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="kill only these")
    parser.add_argument("--daemons", type=int, default=6, help="kills where the daemon runs things (default 6)")
    parser.add_argument("--full-disks", type=int, default=3, help="full disks per stage")
    parser.add_argument("--every", type=int, default=1, help="fail every n-th call or write only")
    return parser


if __name__ == "__main__":
    main()
