"""Ask a public database whether a locked package has a known vulnerability (pip-audit, OSV).

An audit that could not be done fails, and says so. pip-audit alone ends well when its service does not know a package
or a mirror answers in its place, and it uses one exit status for *vulnerable* and for *no connection*.

    python tools/supply_chain/audit.py constraints.txt

Exit status: 0 nothing is known, 1 something is, 2 the audit could not be done.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CLEAN, VULNERABLE, NOT_DONE = 0, 1, 2
_PROGRAM = (sys.executable, "-m", "pip_audit")
# The lock is complete and exact: nothing is to be resolved, and no index to be asked.
_OPTIONS = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")


@dataclass(frozen=True)
class Verdict:
    """How an audit ended: its exit status, and what it has to say."""

    status: int
    text: str


def judge(report: str, error: str, packages: int) -> Verdict:
    """What pip-audit's output means for a lock of so many packages."""
    try:
        found = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (error.strip().splitlines() or ["it said nothing"])[-1]
        return Verdict(NOT_DONE, f"NOT AUDITED: the vulnerability service did not answer ({reason})")
    skipped = [f"{item['name']}: {item['skip_reason']}" for item in found if "skip_reason" in item]
    if skipped or len(found) != packages:
        known = len(found) - len(skipped)
        return Verdict(NOT_DONE, "\n".join([f"NOT AUDITED: the service knew {known} of {packages} packages", *skipped]))
    lines = [
        f"{item['name']} {item['version']}: {entry['id']}, mended in {', '.join(entry['fix_versions']) or 'no version'}"
        for item in found
        for entry in item["vulns"]
    ]
    if lines:
        return Verdict(VULNERABLE, "\n".join([f"{len(lines)} known vulnerabilities", *lines]))
    return Verdict(CLEAN, f"{packages} packages, no known vulnerability")


def main(argv: Sequence[str] | None = None, program: Sequence[str] = _PROGRAM) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", type=Path)
    parser.add_argument("--service", choices=("osv", "pypi"), default="osv", help="whom to ask (default osv)")
    arguments = parser.parse_args(argv)
    pins = [line for line in arguments.lock.read_text(encoding="utf-8").splitlines() if "==" in line]
    command = [*program, *_OPTIONS, "--vulnerability-service", arguments.service, "-r", str(arguments.lock)]
    done = subprocess.run(command, capture_output=True, text=True)
    verdict = judge(done.stdout, done.stderr, len(pins))
    print(verdict.text, file=sys.stderr if verdict.status else sys.stdout)
    return verdict.status


if __name__ == "__main__":
    sys.exit(main())
