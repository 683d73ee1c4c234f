"""Rows of the benchmarks' tables: a row is on the disk as soon as it is made."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def append(table: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Add rows to a CSV table; a column that a row does not have stays empty."""
    table.parent.mkdir(parents=True, exist_ok=True)
    new = not table.is_file()
    with table.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
