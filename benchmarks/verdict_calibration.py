"""How often the verdict says `helps` where nothing helps, on simulated predictions.

Patients are clustered (two images each, difficulty shared by all fits), classifier seeds scatter. The last column is
what an interval over patients alone would have said.

Run: .venv/bin/python benchmarks/verdict_calibration.py [simulations]
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.downstream import VerdictPlan, decide
from pipeline.downstream.figures import draw_test_sets, figures_of_fits

REFERENCE, AUGMENTED = "real+classical", "real+classical+synthetic@1"
CASES = [(0.0, 40, 3), (0.0, 40, 6), (0.0, 120, 3)]
"""Gain, patients, classifier seeds."""
PLAN = VerdictPlan(positive=("disease",), bootstrap=200)


def simulate(seed: int, gain: float, patients: int, seeds: int, seed_sd: float = 0.25) -> pd.DataFrame:
    """Predictions of binormal readers; `gain` is added to the augmented arm's separation."""
    random = np.random.default_rng(seed)
    ids = np.repeat([f"p{number}" for number in range(patients)], 2)
    disease = np.repeat(np.arange(patients) % 2 == 0, 2)
    difficulty = np.repeat(random.normal(size=patients), 2) + 0.5 * random.normal(size=2 * patients)
    tables = []
    for arm, effect in ((REFERENCE, 0.0), (AUGMENTED, gain)):
        for number in range(seeds):
            separation = 1.5 + effect + seed_sd * random.normal()
            for split in ("val", "test"):
                latent = difficulty if split == "test" else random.normal(size=2 * patients)
                score = latent + separation * disease + 0.4 * random.normal(size=2 * patients)
                facts = {"arm": arm, "fold": "0", "seed": number, "gan_seed": "", "split": split, "patient_id": ids}
                labels = {"label": np.where(disease, "disease", "normal"), "score_disease": score}
                names = [f"{split}-{position}" for position in range(2 * patients)]
                tables.append(pd.DataFrame(facts | labels | {"image_id": names}))
    return pd.concat(tables, ignore_index=True)


def patients_alone_helps(table: pd.DataFrame) -> bool:
    """The verdict of a 95 % percentile interval over patients that forgets the seeds."""
    tests = draw_test_sets(table.astype({"seed": str}), PLAN.bootstrap, 0)
    fits = figures_of_fits(table.astype({"seed": str}), PLAN.positive, tests, ("auroc",))
    means = [np.mean([f.values["auroc"] for f in fits if f.arm == arm], axis=0) for arm in (AUGMENTED, REFERENCE)]
    return bool(np.quantile((means[0] - means[1])[1:], 0.025) > 0)


def row(gain: float, patients: int, seeds: int, simulations: int) -> str:
    tables = [simulate(seed, gain, patients, seeds) for seed in range(simulations)]
    helps = sum(decide(table, PLAN).decision == "helps" for table in tables)
    alone = sum(map(patients_alone_helps, tables))
    low, high = stats.binomtest(helps, simulations).proportion_ci(method="wilson")
    rates = f"{helps / simulations:>7.1%} ({low:.1%} to {high:.1%})"
    return f"{gain:>6.2f} {patients:>9} {seeds:>6} {rates:>26} {alone / simulations:>15.1%}"


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print(f"{'gain':>6} {'patients':>9} {'seeds':>6} {'helps (95 % interval)':>26} {'patients alone':>15}")
    for case in CASES:
        print(row(*case, simulations), flush=True)


if __name__ == "__main__":
    main()
