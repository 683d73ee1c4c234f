"""Is the stated ε kept? Canaries put in by the toss of a coin, in sound trainings and in ones with planted mistakes.

Run: .venv/bin/python benchmarks/dp_canaries.py | table

Each row is one audit in one run (Steinke et al. 2023) of 400 canaries at a stated ε of 1 or 8 (δ = 1e-5): of 20
moves of DP-SGD, by who holds every noisy sum, and of DP-MERF's one sum. `lower` is the ε that the canaries show at
least, at 95 %: above the stated one, the promise is broken. The mistakes are those of `tests/canaries.py`. Rows are
added to benchmarks/results/dp_canaries.csv; `table` prints what docs/differential-privacy.md has.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pandas as pd
from rows import append

from pipeline.core.threads import use_threads
from pipeline.measures.canaries import lower_bound

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from canaries import DELTA, PLANTED, dp_merf, dp_sgd  # noqa: E402

TABLE = ROOT / "benchmarks" / "results" / "dp_canaries.csv"
COLUMNS = ["method", "planted", "epsilon", "seed", "lower"]
METHODS = {"DP-SGD": (dp_sgd, tuple(PLANTED)), "DP-MERF": (dp_merf, ("none", "no noise", "no clipping"))}
EPSILONS, SEEDS = (1.0, 8.0), 3


def main() -> None:
    if sys.argv[1:] == ["table"]:
        found = pd.read_csv(TABLE)
        found["broken"] = found["lower"] > found["epsilon"]
        print("| method | mistake | stated ε | ε at least: median (range) | broken |\n|---|---|---|---|---|")
        for (method, planted, epsilon), rows in found.groupby(["method", "planted", "epsilon"], sort=False):
            low = rows["lower"]
            shown = f"{low.median():.2f} ({low.min():.2f} to {low.max():.2f})"
            print(f"| {method} | {planted} | {epsilon:g} | {shown} | {rows['broken'].sum()} of {len(rows)} |")
        return
    use_threads(1)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    done = pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)
    there = set(done[COLUMNS[:4]].itertuples(index=False, name=None))
    for method, (scores, mistakes) in METHODS.items():
        for planted in mistakes:
            for key in ((method, planted, epsilon, seed) for epsilon in EPSILONS for seed in range(SEEDS)):
                if key not in there:
                    lower = lower_bound(*scores(planted, key[2], key[3]), DELTA)
                    row = dict(zip(COLUMNS, (*key, round(lower, 3)), strict=True))
                    append(TABLE, [row], COLUMNS)


if __name__ == "__main__":
    main()
