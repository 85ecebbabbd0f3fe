"""A table as people send it: CSV of commas, semicolons or tabs in UTF-8, and what spreadsheets add to it."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penumo_assets.cohort.errors import LandingError

MAX_BYTES = 64 * 2**20
MAX_ROWS = 1_000_000
MAX_COLUMNS = 256
_DELIMITERS = ",;\t|"
_END_OF_FILE = "\x1a"  # Ctrl-Z, as old programs end a text


@dataclass(frozen=True)
class Table:
    """A table's columns, in lower case with ``_`` for spaces, and its rows of cells as they stand, empty ones left out.

    ``called`` is how messages name the table. Iterating reads the rows; it can be done once.
    """

    called: str
    columns: tuple[str, ...]
    rows: Iterator[list[str]]

    def records(self) -> Iterator[dict[str, str]]:
        """The rows as stripped texts by column; cells that a short row lacks are empty.

        Raises
        ------
        LandingError
            If the rest of the table cannot be read.
        """
        for cells in self.rows:
            padded = [*cells, *[""] * (len(self.columns) - len(cells))]
            yield {name: cell.strip() for name, cell in zip(self.columns, padded, strict=False) if name}


def read_table(data: bytes, called: str, required: Sequence[str], max_rows: int = MAX_ROWS) -> Table:
    """Read a table whose header names the ``required`` columns.

    Raises
    ------
    LandingError
        If it is not UTF-8, lacks a column, or has too many rows or columns; what the rows have is found while they are
        read.
    """
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    try:
        header = text.readline()
        if header[:4].lower() == "sep=":  # a line that a spreadsheet writes for itself
            header = text.readline()
        delimiter = _delimiter(header, required)
        columns = tuple(_column(name) for name in next(csv.reader([header], delimiter=delimiter, strict=True), []))
    except (UnicodeError, csv.Error) as error:
        raise _unreadable(called, error) from error
    if missing := [name for name in required if name not in columns]:
        raise LandingError(f"{called} lacks the column(s) {', '.join(missing)}")
    if len(columns) > MAX_COLUMNS:
        raise LandingError(f"{called} has {len(columns)} columns; {MAX_COLUMNS} are read")
    return Table(called, columns, _rows(text, delimiter, called, max_rows))


def _rows(text: io.TextIOWrapper, delimiter: str, called: str, max_rows: int) -> Iterator[list[str]]:
    count = 0
    try:
        for cells in csv.reader(text, delimiter=delimiter, strict=True):
            if not any(cell.strip() for cell in cells) or cells == [_END_OF_FILE]:
                continue
            count += 1
            if count > max_rows:
                raise LandingError(f"{called} has more than {max_rows} rows: split the cohort")
            yield cells
    except (UnicodeError, csv.Error) as error:
        raise _unreadable(called, error) from error


def _delimiter(header: str, required: Sequence[str]) -> str:
    """The one by which the header names most of the required columns."""

    def found(delimiter: str) -> int:
        names = {_column(name) for name in header.split(delimiter)}
        return sum(name in names for name in required)

    return max(_DELIMITERS, key=lambda each: (found(each), header.count(each)))


def _column(name: str) -> str:
    return "_".join(name.strip().strip('"').casefold().split())


def _unreadable(called: str, error: Exception) -> LandingError:
    return LandingError(f"{called} is not a UTF-8 CSV table: {error}. Save it as CSV UTF-8.")
