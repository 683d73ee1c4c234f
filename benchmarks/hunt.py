"""The hunt: what really helps? Rows of whole runs, GAN arms beside their controls on the same patients.

Each row is one `radaug run` of a shipped configuration with the changes of hunt_rows.py, in a directory of its own;
finished stages come from the cache. Its comparisons go to benchmarks/results/hunt.csv, all of them, and `table` prints
docs/results.md's table. The test patients of a row are opened once, by that run. AUROC decides, as the configurations
say beforehand; sensitivity and specificity of the same pairs are told beside it.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/hunt.py ROW [ROW ...] | table | together ROW ROW ... [arm=…]
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from hunt_rows import ROOT, ROWS
from planted_scanners import plant
from rows import append

from pipeline.core.files import read_json
from pipeline.verdict import VerdictPlan, decide
from pipeline.verdict.decide import read_predictions

TABLE = ROOT / "benchmarks" / "results" / "hunt.csv"
PLANTED = {"chest": 7, "fresh": 8, "kernels": 12, "kernels3d": 13, "adrenal": 11}
"""Pairs of planted scanners, and the seed of each."""
FIELDS = (
    "row", "kind", "arm", "reference", "endpoint", "difference", "ci_low", "ci_high", "p", "alone", "verdict",
    "n_patients", "n_folds", "fits", "minutes",
)  # fmt: skip
ENDPOINTS = ("auroc", "sensitivity", "specificity")
"""The first decides; the others are told of the same pairs of arms, with the threshold that was fixed on val."""


def run_row(name: str) -> None:
    """Run a row's configuration, and add its comparisons to the table."""
    config, changes = ROWS[name]
    pair = name.split("-")[1]
    if name.startswith("scanner-") and not (ROOT / "runs" / pair).exists():
        plant(pair, ROOT / "runs" / pair, PLANTED[pair])
    out = ROOT / "runs" / f"hunt-{name}"
    command = [str(Path(sys.executable).parent / "radaug"), "run", f"configs/{config}.yaml", "--out", str(out), "--yes"]
    started = time.monotonic()
    subprocess.run([*command, *(word for change in changes for word in ("--set", change))], check=True, cwd=ROOT)
    append(TABLE, comparisons(name, out, (time.monotonic() - started) / 60), FIELDS)


def comparisons(name: str, out: Path, minutes: float) -> list[dict[str, Any]]:
    """Every comparison of a finished run, in every endpoint; none of a run of controls alone."""
    utility = read_json(out / "verdict.json")["utility"]
    if "plan" not in utility["evidence"]:
        return []
    plan = plan_in(utility["evidence"]["plan"], utility["evidence"]["arm"])
    predictions = read_predictions(out / "predictions.csv")
    rows = []
    for endpoint in ENDPOINTS:
        found = (
            utility if endpoint == plan.endpoint else decide(predictions, replace(plan, endpoint=endpoint)).as_json()
        )
        for place, one in enumerate(found["evidence"]["comparisons"]):
            decides = place == 0 and endpoint == plan.endpoint
            rows.append({
                "row": name, "kind": "primary" if decides else "exploratory", "alone": one["decision"],
                "verdict": utility["decision"] if decides else "", "minutes": round(minutes, 1),
                **{key: one[key] for key in ("arm", "reference", "endpoint")},
                **{key: shown(one[key]) for key in ("difference", "ci_low", "ci_high", "p")},
                **{key: found["evidence"][key] for key in ("n_patients", "n_folds")},
                "fits": found["evidence"]["n_classifier_seeds"] * found["evidence"]["n_gan_seeds"],
            })  # fmt: skip
    return rows


def together(names: list[str], changes: dict[str, str]) -> str:
    """The primary arm's comparisons over the labelled draws of several rows at once, as one set of draws.

    Args:
        changes: of the plan, such as another `arm` or `stratum`: what they say was not planned.
    """
    outs = [ROOT / "runs" / f"hunt-{name}" for name in names]
    tables = [read_predictions(out / "predictions.csv") for out in outs]
    draws = [
        re.sub("-(more|mixed|filters|translated|simclr|archive)-|(?<=pool)-fresh-", "-", name) + "-" for name in names
    ]  # rows with further arms are of the same draws
    joined = pd.concat([table.assign(fold=draw + table["fold"]) for draw, table in zip(draws, tables, strict=True)])
    joined = joined.drop_duplicates(["arm", "fold", "seed", "gan_seed", "split", "image_id"])
    utility = read_json(outs[0] / "verdict.json")["utility"]
    found = decide(joined, replace(plan_in(utility["evidence"]["plan"], utility["evidence"]["arm"]), **changes))
    pairs = [
        f"{one['arm']} against {one['reference']}: {points(pd.DataFrame([one]))}, {one['decision']}"
        for one in found.evidence["comparisons"]
    ]
    return "\n".join([f"{' + '.join(names)}: {found.decision}", *found.reasons, *pairs])


def plan_in(values: dict[str, Any], arm: str) -> VerdictPlan:
    """The plan as the run's verdict wrote it down, with the arm that it compared."""
    return VerdictPlan(**values | {"positive": tuple(values["positive"]), "arm": arm, "comparisons": ()})


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def table() -> str:
    """Every comparison of every row: a line a pair of arms, differences in points with 95 % intervals."""
    lines = [
        "| row (test patients) | arm | against | AUROC | sensitivity | specificity | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = pd.read_csv(TABLE, keep_default_na=False, dtype=str)
    for (name, arm, reference), pair in rows.groupby(["row", "arm", "reference"], sort=False):
        cells = [points(pair[pair["endpoint"] == endpoint]) for endpoint in ENDPOINTS]
        verdict = "".join(pair["verdict"])
        told = f"**{verdict}**" if verdict else pair["alone"].iloc[0]
        place = f"{name} ({pair['n_patients'].iloc[0]})"
        lines.append(f"| {' | '.join((place, arm, reference, *cells, told))} |")
    return "\n".join(lines)


def points(rows: pd.DataFrame) -> str:
    one = rows.iloc[0]
    span = f" ({100 * float(one['ci_low']):+.1f} to {100 * float(one['ci_high']):+.1f})" if one["ci_low"] else ""
    return f"{100 * float(one['difference']):+.1f}{span}"


def main() -> None:
    if sys.argv[1:] == ["table"]:
        print(table())
        return
    if sys.argv[1:2] == ["together"]:
        rows = [word for word in sys.argv[2:] if "=" not in word]
        print(together(rows, dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)))
        return
    for name in sys.argv[1:] or list(ROWS):
        run_row(name)


if __name__ == "__main__":
    main()
