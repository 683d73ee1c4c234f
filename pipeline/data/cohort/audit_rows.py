"""What a row of the audit is: check, severity, count, detail. No row names a patient."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

INFO, WARNING = "info", "warning"
COLUMNS = ("check", "severity", "count", "detail")
Row = tuple[str, str, int, str]


def audit_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of (check, severity, count, detail) as text."""
    return pd.DataFrame([tuple(map(str, row)) for row in rows], columns=list(COLUMNS), dtype=str)
