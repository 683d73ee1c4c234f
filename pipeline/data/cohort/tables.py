"""The reading of tables that people made: any encoding and separator, and what is wrong with them by line."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.core.errors import DataError
from pipeline.core.text import decode, foreign_kind

SEPARATORS = ",;\t|"
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad"
_Line = tuple[int, list[str]]


def read_user_table(path: Path) -> pd.DataFrame:
    """Read a CSV that a person made; all text, stripped. The index holds the lines of the file, counted from 1.

    Comma, semicolon, tab or bar; UTF-8, UTF-16 or Windows text; with or without byte order mark and Excel's `sep=`
    line. Empty rows and empty columns at the end are passed over; a column with values and no name becomes
    `unnamed_NUMBER`.

    Raises:
        DataError: it is not there, no text, has no rows, a column twice, or a row of another length than the header.
    """
    text = _text(path)
    lines = _lines(path, text, *_separator(text))
    if len(lines) < 2:
        raise DataError(f"{path.name}: has no rows below its header.")
    columns = _columns(lines)
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise DataError(f"{path.name}: columns {sorted(repeated)} occur more than once. Rename or remove one of each.")
    for number, row in lines[1:]:
        if len(row) < len(columns) or any(row[len(columns) :]):
            found = f"{path.name}, line {number}: {len(row)} cells under {len(columns)} columns"
            raise DataError(f"{found}. {_mend(columns, lines[0][0])}")
    rows = [row[: len(columns)] for _, row in lines[1:]]
    return pd.DataFrame(rows, columns=columns, index=[number for number, _ in lines[1:]], dtype=str)


def shown_lines(numbers: Sequence[int], at_most: int = 5) -> str:
    """`line 3`, or `lines 3, 7 and 12`, or `lines 3, 7, 9 and 4 more`, for a message."""
    some = [str(number) for number in numbers[:at_most]]
    if len(numbers) == 1:
        return f"line {some[0]}"
    if len(numbers) > at_most:
        return f"lines {', '.join(some)} and {len(numbers) - at_most} more"
    return f"lines {', '.join(some[:-1])} and {some[-1]}"


def _mend(columns: Sequence[str], header: int) -> str:
    if len(columns) == 1:
        return f"Line {header} is taken for the header: take out what stands above the columns' names."
    return "Put text that holds the separator in quotes."


def _text(path: Path) -> str:
    if path.is_dir():
        raise DataError(f"{path.name}: is a folder, not a table. Name the file in it.")
    if not path.is_file():
        raise DataError(f"{path.name}: there is no such table in {path.parent.absolute()}. Check the path.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.name}: the table cannot be read ({error.strerror}). Check its permissions.") from error
    if kind := foreign_kind(raw):
        raise DataError(f"{path.name}: is not a CSV table but {kind}.")
    try:
        text, _ = decode(raw)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}: is text neither in UTF-8 nor UTF-16 nor Windows' cp1252. Save it as 'CSV UTF-8'."
        ) from error
    if "\0" in text:
        raise DataError(f"{path.name}: is not a text file, since it holds zero bytes. Save the table as 'CSV UTF-8'.")
    return text


def _separator(text: str) -> tuple[str, bool]:
    """The separator, and whether Excel's first line `sep=;` names it; else the commonest one of the header."""
    first = text.split("\n", 1)[0].rstrip("\r").strip('"')
    if first.lower().startswith("sep=") and len(first) >= 5:
        return first[4], True
    header = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    return max(SEPARATORS, key=re.sub(r'"[^"]*"', "", header).count), False


def _lines(path: Path, text: str, separator: str, named: bool) -> list[_Line]:
    """Rows that hold anything, cells cleaned, each with the line that it begins in."""
    source = io.StringIO(text, newline=None)
    skipped = 1 if named else 0
    for _ in range(skipped):
        source.readline()
    reader = csv.reader(source, delimiter=separator, strict=True)
    lines, begin = [], skipped + 1
    try:
        for row in reader:
            cells = [_clean(cell) for cell in row]
            if any(cells):
                lines.append((begin, cells))
            begin = skipped + reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path.name}, line {begin}: is not a CSV table ({error}; a quote that is not closed?). Save it as "
            "'CSV UTF-8'."
        ) from error
    return lines


def _clean(cell: str) -> str:
    """Without spaces and invisible marks at its ends, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", cell.strip().strip(_INVISIBLE).strip())


def _columns(lines: Sequence[_Line]) -> list[str]:
    """The names of the header, without the empty columns at its end."""
    names = list(lines[0][1])
    while names and not names[-1] and not any(len(row) >= len(names) and row[len(names) - 1] for _, row in lines[1:]):
        names.pop()
    return [name or f"unnamed_{place}" for place, name in enumerate(names, start=1)]
