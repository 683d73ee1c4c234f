"""The tables of docs/families.md: what the families are, and those measured, from benchmarks/results/families.csv.

Run: .venv/bin/python benchmarks/table_of_families.py [xray-32 liver-3d-32 …]
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from pipeline.adversarial.families import FAMILIES
from pipeline.config.families import family_module

TABLE = Path(__file__).resolve().parent / "results" / "families.csv"


def facts() -> list[str]:
    """One line a family: what its file says of it."""
    found = ["| family | what it is | asked by | note |", "|---|---|---|---|"]
    for name, family in FAMILIES.items():
        what = str(family_module(name).__doc__).splitlines()[0].rstrip(".")
        found.append(f"| `{name}` | {what} | {', '.join(family.conditions)} | {family.note} |")
    return found


def with_interval(row: pd.Series, name: str, scale: float = 1.0, digits: int = 1) -> str:
    """`37.2 (34.1–40.3)`, or a dash where the family has no such figure."""
    if not row[name]:
        return "–"
    value, low, high = (float(row[key]) * scale for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def lines(table: pd.DataFrame) -> list[str]:
    """One line a family, by FID; families without one last."""
    order = pd.to_numeric(table["fid"], errors="coerce").argsort()
    found = [
        "| family | FID | KID × 1000 | coverage | GFLOP / image | seconds | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for _, row in table.iloc[order].iterrows():
        cells = [row["family"], with_interval(row, "fid"), with_interval(row, "kid", 1000), row["coverage"] or "–"]
        found.append(f"| {' | '.join([*cells, row['gflop_per_image'], row['seconds'], row['peak_mib']])} |")
    return found


def main() -> None:
    print("\n".join(facts()))
    table = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
    for setting in sys.argv[1:]:
        print(f"\n{setting}\n")
        print("\n".join(lines(table[table["setting"] == setting])))


if __name__ == "__main__":
    main()
