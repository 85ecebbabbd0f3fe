"""The published schema of report.json."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

SCHEMA_NAME = "report.schema.json"
MAX_PROBLEMS = 10


class InvalidReport(ValueError):
    """A report that does not follow the schema; the message lists where and how."""


@cache
def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12)."""
    return json.loads(files("penumo_assets.metrics.report").joinpath(SCHEMA_NAME).read_text(encoding="utf-8"))


def validate_report(report: Mapping[str, Any]) -> None:
    """Check the content of a report.json.

    Raises
    ------
    InvalidReport
        With up to ten problems, each with its place in the document.
    """
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(schema()).iter_errors(report), key=lambda error: list(map(str, error.path)))
    if errors:
        lines = [f"{'/'.join(map(str, error.absolute_path)) or '(top)'}: {error.message[:200]}" for error in errors]
        more = f" and {len(lines) - MAX_PROBLEMS} more" if len(lines) > MAX_PROBLEMS else ""
        raise InvalidReport("report.json does not follow its schema: " + "; ".join(lines[:MAX_PROBLEMS]) + more)
