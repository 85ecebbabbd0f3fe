"""A small program that stands where a job's program would: tells of its starts, waits or fails when told to."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from penumo_assets.configs.search import FINAL_OBJECTIVE
from penumo_assets.jobs import contract


def main(argv: list[str] | None) -> None:
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    marker = Path(options["--marker"])
    with marker.open("a") as file:
        file.write(f"{os.getpid()}\n")
    print("first line", flush=True)
    what = options.get("--do", "")
    if what == "fail":
        raise contract.JobError("the films are upside down")
    if what == "orphan":  # a worker that outlives the program that was killed
        with marker.open("a") as file:
            file.write(f"{subprocess.Popen(['sleep', '600']).pid}\n")
        os.kill(os.getpid(), 9)
    if what == "crash":
        os.kill(os.getpid(), 9)
    if what == "exhaust":
        raise MemoryError("cannot allocate 9 GiB")
    if what == "silent":
        return
    checkpoint = contract.checkpoint_dir() / "last.txt"
    resumed = checkpoint.exists()
    if what == "checkpoint" and not resumed:
        checkpoint.write_text("half way")
        time.sleep(60)
    if what == "spoil":
        checkpoint.write_text("half way")
        time.sleep(2.5)  # until it has been copied to S3
        raise contract.JobError("the films are upside down")
    while what == "wait" and not marker.with_suffix(".gate").exists():
        time.sleep(0.02)
    for number in range(int(options.get("--lines", "0"))):
        print(f"line {number}", flush=True)
        time.sleep(0.005)
    training = "SM_CHANNELS" in os.environ
    folder = contract.channel if training else contract.processing_input
    films = folder("films")
    if what == "halves":
        kept = halves()
    data = (films / "a" / "x.txt").read_text() + (folder("notes") / "n.json").read_text() if what != "list" else ""
    if training:
        (contract.model_dir() / "weights").write_text(data)
    else:
        made = contract.processing_output("made")
        (made / "sub").mkdir(exist_ok=True)
        (made / "sub" / f"{contract.hosts()[0]}.txt").write_text(data)
    if "--learning-rate" in options:  # a trial of a search
        found = float(options["--learning-rate"]) + (0.5 if options["--input-channels"] == "4" else 0.1)
        print(f"{FINAL_OBJECTIVE}={found:.6g};", flush=True)
    print("last line", flush=True)
    shown = {key: os.environ[key] for key in sorted(os.environ) if key.startswith(("PENUMO_", "TELL_"))}
    shown.pop("PENUMO_OPT_ML")
    values = {"environment": json.dumps(shown), "films": 1, "resumed": resumed, "hosts": [contract.hosts()[0]]}
    values |= {"kept": kept} if what == "halves" else {}
    found = sorted(path.relative_to(films).as_posix() for path in films.rglob("*.*"))
    values |= {"found": [[contract.hosts()[0], *found]]} if what == "list" else {}
    result = contract.output_data_dir() if training else contract.processing_output("result")
    contract.write_result(result, "probe", values)


def halves() -> dict[str, str]:
    """Fail with half of the work done; the next attempt gives what it finds of it."""
    kept = contract.processing_input(contract.KEPT)
    if kept.exists():
        return {path.name: path.read_text() for path in sorted(kept.iterdir())}
    (contract.processing_output("made") / "first.txt").write_text("a half")
    (contract.processing_output("result") / "done.txt").write_text("first")
    raise contract.JobError("half way")


if __name__ == "__main__":
    contract.run_program(main)
