"""Cells of a CSV file that somebody may open in a spreadsheet."""

from typing import Any

# What spreadsheets take for the start of a formula, also as full-width characters, and what may stand before it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def plain_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula, with an apostrophe in front; anything else as it is.

    Reference: https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA_STARTS) else value


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row with `plain_cell` values."""
    return {name: plain_cell(value) for name, value in row.items()}
