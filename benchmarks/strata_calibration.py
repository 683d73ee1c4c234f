"""How often does the verdict say `helps` across sites where nothing helps?

Predictions of two equal arms whose readers go by the site: in site A most are ill, in B most are well. Of the test
images `--rare` are in each rare cell and `--common` in each other one. One study has three classifiers an arm.

Run: .venv/bin/python benchmarks/strata_calibration.py [--studies 400] [--common 95] [--rare 20]
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import pandas as pd

from pipeline.measures.resampling import wilson_interval
from pipeline.verdict import VerdictPlan, decide

REFERENCE, ARM = "real+classical", "real+classical+synthetic@1"
PLANS = {
    "as they are": {}, "one site": {"stratum": "site=A"}, "balanced": {"stratum": "balanced"},
    "reversed": {"stratum": "reversed"}, "worst cell": {"endpoint": "worst_cell"},
}  # fmt: skip


def study(seed: int, common: int, rare: int) -> pd.DataFrame:
    """Predictions of both arms; all fits share a patient's difficulty, and each hears the site in its own measure."""
    random = np.random.default_rng(seed)
    counts = {("A", "ill"): common, ("A", "well"): rare, ("B", "ill"): rare, ("B", "well"): common}
    cells = [cell for cell, count in counts.items() for _ in range(count)]
    site, label = (np.array(column) for column in zip(*cells, strict=True))
    kind = np.where((site == "A") == (label == "ill"), "common", "rare")
    parts = []
    for split in ("val", "test"):
        difficulty = random.normal(size=len(cells))
        for arm in (REFERENCE, ARM):
            for fit in range(3):
                heard = 1.5 + 0.3 * random.normal()
                score = (
                    difficulty + 1.5 * (label == "ill") + heard * (site == "A") + 0.5 * random.normal(size=len(cells))
                )
                facts = {"arm": arm, "fold": "0", "seed": str(fit), "gan_seed": "0" if arm == ARM else ""}
                ids = [f"{split}-{number}" for number in range(len(cells))]
                table = pd.DataFrame(facts | {"split": split, "image_id": ids, "patient_id": ids, "label": label})
                parts.append(table.assign(score_ill=score, score_well=-score, site=site, cell=kind))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Print how often each decision was made, stratum by stratum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--common", type=int, default=95)
    parser.add_argument("--rare", type=int, default=20)
    asked = parser.parse_args()
    found: dict[str, Counter[str]] = {name: Counter() for name in PLANS}
    for seed in range(asked.studies):
        table = study(seed, asked.common, asked.rare)
        for name, changes in PLANS.items():
            plan = VerdictPlan(positive=("ill",), bootstrap=300, arm=ARM, **changes)  # type: ignore[arg-type]
            found[name][decide(table, plan).evidence["comparisons"][0]["decision"]] += 1
    print("| test images | helps (95 %) | harms |\n|---|---|---|")
    for name, counts in found.items():
        low, high = wilson_interval(counts["helps"], asked.studies, 0.05)
        print(f"| {name} | {counts['helps'] / asked.studies:.1%} ({low:.1%} to {high:.1%}) | "
              f"{counts['harms'] / asked.studies:.1%} |")  # fmt: skip


if __name__ == "__main__":
    main()
