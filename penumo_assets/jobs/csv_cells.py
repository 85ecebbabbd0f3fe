"""Cells of a CSV file that somebody may open in a spreadsheet."""

import re
from typing import Any

# What spreadsheets take for the start of a formula, also as full-width characters, and what may stand before it.
# Where the comma is the decimal sign, a semicolon begins a cell too.
_FORMULA = re.compile("(?:^|(?<=;))(?= *[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")


def plain_cell(value: Any) -> Any:
    """Text with an apostrophe before whatever a spreadsheet would run as a formula; anything else as it is.

    Reference: https://owasp.org/www-community/attacks/CSV_Injection
    """
    return _FORMULA.sub("'", value) if isinstance(value, str) else value


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row with `plain_cell` values."""
    return {name: plain_cell(value) for name, value in row.items()}
