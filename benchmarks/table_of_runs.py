"""The README's table of results, from finished runs.

Run: .venv/bin/python benchmarks/table_of_runs.py runs/demo runs/demo-3d …
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from pipeline.config.loading import load_experiment
from pipeline.core.files import read_json
from pipeline.core.metrics import read_metrics, table_of
from pipeline.core.records import load_record

METRICS = ("sensitivity", "specificity", "auroc")


def cell(rows: pd.DataFrame, metric: str) -> str:
    """A mean with its interval, in the table's form."""
    row = rows[rows["metric"] == metric].iloc[0]
    value = f"{float(row['value']):.3f}"
    return f"{value} ({float(row['ci_low']):.2f}–{float(row['ci_high']):.2f})" if row["ci_low"] else f"{value} (–)"


def lines(run: Path) -> list[str]:
    """One line an arm; decision and minutes on the first."""
    experiment = load_experiment(run / "config.yaml")
    table = table_of(read_metrics(run))
    means = table[(table["stage"] == "downstream") & (table["fold"] == "") & (table["split"] == "test")]
    means = means[means["label"] == "+".join(experiment.data.positive)]
    utility = read_json(run / "verdict.json")["utility"]
    minutes = sum(load_record(path).wall_s for path in (run / "stages").iterdir()) / 60
    patients = round(float(means["n_patients"].iloc[0]))
    found = []
    for arm in experiment.arms:
        rows = means[means["arm"] == arm]
        last = f"{utility['decision']} | {minutes:.0f}" if not found else " | "
        name = f"{run.name} ({patients})" if not found else ""
        found.append(f"| {name} | {arm} | {' | '.join(cell(rows, metric) for metric in METRICS)} | {last} |")
    return found


def main() -> None:
    print("| config (test patients) | arm | sensitivity | specificity | AUROC | decision | minutes |")
    print("|---|---|---|---|---|---|---|")
    for name in sys.argv[1:]:
        print("\n".join(lines(Path(name))))


if __name__ == "__main__":
    main()
