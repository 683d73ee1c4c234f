"""The tables of docs/sites.md from a finished run: every arm across sites, and the planned comparisons.

Run: .venv/bin/python benchmarks/table_of_sites.py runs/shortcut
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.core.files import read_json
from pipeline.core.layout import VERDICT
from pipeline.core.metrics import MetricRow, read_metrics

_STAGE = "sites"


def main(run: Path) -> None:
    """Print both tables."""
    rows = [row for row in read_metrics(run) if row.stage == _STAGE and row.metric in ("auroc", "worst_cell")]
    strata = list(dict.fromkeys(row.subgroup for row in rows))
    print(f"| arm | {' | '.join(strata)} |")
    print("|---" * (1 + len(strata)) + "|")
    for arm in dict.fromkeys(row.arm for row in rows):
        found = {row.subgroup: row for row in rows if row.arm == arm}
        print(f"| `{arm}` | {' | '.join(figure(found[name]) for name in strata)} |")
    print("\n| arm | against | difference, points (95 %) | p (Holm) | alone |")
    print("|---|---|---|---|---|")
    for one in read_json(run / VERDICT)["utility"]["evidence"]["comparisons"]:
        low, high = (f"{100 * one[name]:+.1f}" if one[name] is not None else "–" for name in ("ci_low", "ci_high"))
        p = "not planned" if one["p_holm"] is None else f"{one['p_holm']:.3f}"
        names = f"`{one['arm']}` | `{one['reference']}`"
        print(f"| {names} | {100 * one['difference']:+.1f} ({low} to {high}) | {p} | {one['decision']} |")


def figure(row: MetricRow) -> str:
    """A mean with its interval, where there is one."""
    value = f"{float(row.value):.2f}"
    return f"{value} ({float(row.ci_low):.2f}–{float(row.ci_high):.2f})" if row.ci_low else value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
