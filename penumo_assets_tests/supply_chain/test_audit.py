"""An audit that could not be done never passes for one that found nothing."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.supply_chain.audit import CLEAN, NOT_DONE, VULNERABLE, judge, main
from tools.supply_chain.sbom import read_lock

CHECKOUT = Path(__file__).parents[2]
FINE = {"name": "tqdm", "version": "4.70.1", "vulns": []}
VULNERABILITY = {"id": "PYSEC-2026-1", "fix_versions": ["9.9"], "aliases": [], "description": ""}
pytestmark = pytest.mark.trust


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_packages_without_a_known_vulnerability_pass() -> None:
    assert judge(report(FINE), "", 1).status == CLEAN


def test_a_vulnerable_package_is_named_with_the_version_that_mends_it() -> None:
    verdict = judge(report(FINE, {"name": "mlflow", "version": "3.1", "vulns": [VULNERABILITY]}), "", 2)
    assert verdict.status == VULNERABLE
    assert "mlflow 3.1: PYSEC-2026-1, mended in 9.9" in verdict.text


def test_packages_that_the_service_skipped_were_not_audited() -> None:
    """What pip-audit reports, with exit status 0, where a mirror answers instead of the service."""
    verdict = judge(report(FINE, {"name": "mlflow", "skip_reason": "Dependency not found on PyPI"}), "", 2)
    assert verdict.status == NOT_DONE
    assert "knew 1 of 2 packages" in verdict.text
    assert "mlflow: Dependency not found" in verdict.text


def test_packages_that_the_report_leaves_out_were_not_audited() -> None:
    assert judge(report(FINE), "", 2).status == NOT_DONE


def program(folder: Path, code: str) -> list[str]:
    script = folder / "auditor.py"
    script.write_text(code, encoding="utf-8")
    return [sys.executable, str(script)]


def test_a_service_that_cannot_be_reached_fails_with_a_clear_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("tqdm==4.70.1\n", encoding="utf-8")
    unreachable = program(tmp_path, "raise ConnectionError('no route to api.osv.dev')")
    assert main([str(lock)], unreachable) == NOT_DONE
    said = capsys.readouterr().err
    assert said == (
        "NOT AUDITED: the vulnerability service did not answer (ConnectionError: no route to api.osv.dev)\n"
    )


def test_the_auditor_is_asked_about_the_lock_and_resolves_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("# a comment\ntqdm==4.70.1\n", encoding="utf-8")
    asked = tmp_path / "asked.json"
    code = f"import json, sys\njson.dump(sys.argv[1:], open({str(asked)!r}, 'w'))\nprint({report(FINE)!r})"
    assert main([str(lock)], program(tmp_path, code)) == CLEAN
    arguments = json.loads(asked.read_text(encoding="utf-8"))
    assert {"--no-deps", "--disable-pip"} <= set(arguments)
    assert arguments[-4:] == ["--vulnerability-service", "osv", "-r", str(lock)]


def test_the_auditor_itself_is_pinned_and_shares_the_locks_versions() -> None:
    own = read_lock((CHECKOUT / "tools" / "supply_chain" / "requirements.txt").read_text(encoding="utf-8"))
    locked = read_lock((CHECKOUT / "constraints.txt").read_text(encoding="utf-8"))
    assert "pip-audit" in own
    assert {name: own[name] for name in own.keys() & locked.keys()} == {
        name: locked[name] for name in own.keys() & locked.keys()
    }


def test_make_audit_fails_where_the_audit_fails() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^audit:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    last = recipe.splitlines()[-1]
    assert last == "\tbuild/audit/bin/python tools/supply_chain/audit.py constraints.txt"
