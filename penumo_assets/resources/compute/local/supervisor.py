"""Stand between the orchestrator and one local job, so that the job outlives a crash of the orchestrator.

Started in a session of its own, it runs the program, writes its output to ``log.txt`` and, at the
end, how it ended to ``exit.json``; whatever the program left running ends with it. It knows only the standard
library, so it starts at once and weighs little. Both it and the program hold the job's claim (a lock that the system
releases when the last of them ends), so the job counts as running while either lives.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path


def main() -> None:
    folder, claim, limit = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            sys.argv[4:], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, pass_fds=(claim,)
        )
        stopped = threading.Event()

        def stop(*_: object) -> None:
            stopped.set()
            process.terminate()

        signal.signal(signal.SIGTERM, stop)
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            log.write(f"ERROR stopped after the limit of {limit:.0f} s\n".encode())
    # What landed may name a patient and may be withdrawn: it does not stay here, however the program ended.
    for inputs in ("ml/processing/input", "ml/input"):
        shutil.rmtree(folder / inputs, ignore_errors=True)
    _write(folder / "exit.json", {"code": code, "stopped": stopped.is_set()})
    os.killpg(0, signal.SIGKILL)  # workers of a program that was killed would wait for it for ever


def _write(path: Path, value: dict[str, object]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    main()
