"""The hunt: what really helps? Rows of whole runs, GAN arms beside their controls on the same patients.

Each row is one `radaug run` of a shipped configuration with the changes below, in a directory of its own; finished
stages come from the cache. Its comparisons go to benchmarks/results/hunt.csv, all of them, and `table` prints
docs/results.md's table. The test patients of a row are looked at once, by the verdict of that run.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/hunt.py ROW [ROW ...] | table
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from rows import append

from pipeline.core.files import read_json

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "hunt.csv"
OVERSAMPLING, MIXUP = "real+classical+oversampling", "real+classical+mixup"
ADDED = ["real+classical", OVERSAMPLING, MIXUP, "real+classical+synthetic@0.5", "real+classical+synthetic@1"]
PRETRAINED = ["synthetic-pretrained", "augmented-pretrained"]
POOL = [
    "real+classical",
    "real+classical+pseudolabels",
    "pool-gan",
    "gan-features",
    "simclr-features",
    "random-features",
]
MINORITY = [
    "real+classical", "real+classical+classweights", OVERSAMPLING, "real+classical+logitadjustment",
    "real+classical+refit", "minority-synthetic",
]  # fmt: skip
SMALL_64 = ["gan.generator_width=16", "gan.discriminator_width=16", "gan.num_images=40000"]
QUICK = ["classifier.steps=300", "classifier.seeds=3"]


def arms(names: list[str]) -> str:
    return f"arms=[{', '.join(names)}]"


ROWS: dict[str, tuple[str, list[str]]] = {
    "pneumonia-50-added": (
        "pneumoniamnist",
        [arms(ADDED + PRETRAINED), "gan.num_images=60000", "data.split.draws=3", *QUICK],
    ),
    "pneumonia-50-pool": (
        "pneumoniamnist",
        [
            arms(POOL), "gan.family=s3gan", "gan.num_images=60000", "data.surplus=unlabelled", "data.split.draws=3",
            "classifier.encoder_images=30000", *QUICK,
        ],
    ),
    "pneumonia-200-to-20": (
        "pneumoniamnist",
        [
            arms(MINORITY), "data.train_per_class={normal: 20, pneumonia: 200}", "gan.num_images=60000",
            "data.split.draws=3", *QUICK,
        ],
    ),
    "nih-added": ("nih-cxr", [arms(ADDED), *SMALL_64, *QUICK]),
    "adrenal-minority": ("adrenal3d", [arms(MINORITY), "gan.num_images=10000", *QUICK]),
    "tcga-added": ("tcga-contrast", [arms(ADDED), *SMALL_64, *QUICK]),
    "liver-added": ("demo", [arms(ADDED + PRETRAINED), "gan.num_images=60000", *QUICK]),
}  # fmt: skip
FIELDS = (
    "row", "arm", "reference", "endpoint", "arm_kind", "difference", "ci_low", "ci_high", "p", "alone", "verdict",
    "n_patients", "n_folds", "minutes",
)  # fmt: skip


def run_row(name: str) -> None:
    config, changes = ROWS[name]
    out = ROOT / "runs" / f"hunt-{name}"
    command = [str(Path(sys.executable).parent / "radaug"), "run", f"configs/{config}.yaml", "--out", str(out)]
    started = time.monotonic()
    subprocess.run([*command, *(word for change in changes for word in ("--set", change))], check=True, cwd=ROOT)
    minutes = (time.monotonic() - started) / 60
    utility = read_json(out / "verdict.json")["utility"]
    for place, one in enumerate(utility["evidence"].get("comparisons", [])):
        kind = "primary" if place == 0 else "planned" if one["p_holm"] is not None else "exploratory"
        add(name, one, kind, utility, minutes)


def add(name: str, one: dict[str, Any], kind: str, utility: dict[str, Any], minutes: float) -> None:
    values = {
        "row": name, "arm_kind": kind, "alone": one["decision"], "minutes": round(minutes, 1),
        "verdict": utility["decision"] if kind == "primary" else "",
        **{key: one[key] for key in ("arm", "reference", "endpoint")},
        **{key: f"{one[key]:.5g}" if one[key] is not None else "" for key in ("difference", "ci_low", "ci_high", "p")},
        **{key: utility["evidence"][key] for key in ("n_patients", "n_folds")},
    }  # fmt: skip
    append(TABLE, [values], FIELDS)


def table() -> str:
    """Every comparison of every row, in points."""
    lines = [
        "| row | arm | against | difference, points (95 % interval) | alone | verdict |",
        "|---|---|---|---|---|---|",
    ]
    rows = pd.read_csv(TABLE, keep_default_na=False)
    for row in rows.to_dict("records"):
        span = f" ({100 * float(row['ci_low']):+.1f} to {100 * float(row['ci_high']):+.1f})" if row["ci_low"] else ""
        shown = f"{100 * float(row['difference']):+.1f}{span}"
        cells = (row["row"], row["arm"], row["reference"], shown, row["alone"], row["verdict"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:] == ["table"]:
        print(table())
        return
    for name in sys.argv[1:] or list(ROWS):
        run_row(name)


if __name__ == "__main__":
    main()
