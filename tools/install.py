"""Install the packages of the lock into this environment, and show how far that is: what `make install` runs.

python tools/install.py constraints.txt
"""

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

LOOK_SECONDS = 0.5
LOG_NAME = "install.log"


def main(lock: Path) -> int:
    """The exit status: pip's, whose whole output lies in ``install.log`` of the environment."""
    wanted = sum(1 for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line)
    log, packages = Path(sys.prefix) / LOG_NAME, Path(sysconfig.get_path("purelib"))
    print(f"Installing {wanted} packages, some 2.3 GB; this takes some minutes. Log: {log}", flush=True)
    started = time.monotonic()
    with log.open("wb") as output:
        command = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", "--requirement", str(lock)]
        pip = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            while pip.poll() is None:
                _show(_stage(log, packages, wanted), started)
                time.sleep(LOOK_SECONDS)
        finally:
            pip.terminate()
            pip.wait()
    if pip.returncode:
        print("\n".join(log.read_text(errors="replace").splitlines()[-20:]), f"\nThe whole log: {log}", file=sys.stderr)
    else:
        _show("done", started, last=True)
    return pip.returncode


def _stage(log: Path, packages: Path, wanted: int) -> str:
    """Which of its two stages pip is at, and how far: pip installs only after it has fetched everything."""
    text = log.read_text(errors="replace")
    if "Installing collected packages" in text:
        return f"installed {min(wanted, len(list(packages.glob('*.dist-info'))))} of {wanted} packages"
    fetched = text.count("Collecting ") + text.count("Requirement already satisfied")
    return f"fetched {min(wanted, fetched)} of {wanted} packages"


def _show(stage: str, started: float, *, last: bool = False) -> None:
    """The one line, written over on a terminal; elsewhere only at the end."""
    line = f"  {stage}, {time.monotonic() - started:.0f} s"
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="\n" if last else "", flush=True)
    elif last:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
