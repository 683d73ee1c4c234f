"""How often is a healthy generator's image a near copy of a training image by chance, where many are searched?

    RADAUG_DATA=DATA .venv/bin/python benchmarks/near_chance.py pairs    # nih-cxr…, adrenalmnist3d in DATA; 2 min
    .venv/bin/python benchmarks/near_chance.py sets [--draws 25]         # about a minute a draw
    .venv/bin/python benchmarks/near_chance.py table

`pairs` measures every pair of different patients of a cohort of benchmarks/audit_calibration.py, in units of what 40
unseen patients keep from 120 members (mean of 200 draws): how many pairs are how near, each pair once. `sets` simulates
10,000 fresh lesions, which stand for a healthy generator's images, and judges them beside 120 members and 120 unseen
patients of 6,000 others, all different in every draw; the fresh lesions are the same in all draws. Rows are added to
benchmarks/results/near_pairs.csv and near_chance.csv as they come.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from audit_calibration import COHORTS, ROOT, images_of, simulated
from rows import append
from scipy.stats import chi2

from pipeline.core.compute import Hardware
from pipeline.core.seeds import numpy_generator
from pipeline.core.threads import use_threads
from pipeline.measures.near_copies import NEAR, chance_of_near
from pipeline.privacy.copies import judge_copies
from pipeline.privacy.near_search import plain_distances
from pipeline.privacy.registered import registered_distances

PAIRS = ROOT / "benchmarks" / "results" / "near_pairs.csv"
TABLE = ROOT / "benchmarks" / "results" / "near_chance.csv"
MEMBERS, UNSEEN, SHOWN = 120, 40, 10_000
LIMITS = (0.15, 0.2, NEAR, 0.3, 0.35, 0.4, 0.5, 0.6)
COLUMNS = ["cohort", "members", "draw", "searched", "near", "of_unseen", "nearest", "nearest_unseen", "copies",
           "chance"]  # fmt: skip


def pairs(which: str) -> None:
    """A row a limit: pairs of patients that are nearer than it."""
    images = COHORTS[which]().images
    rows = np.arange(len(images))
    whole = images_of(images, rows)
    found = {"plain": np.empty((len(rows), len(rows)), np.float32)}
    found["registered"] = np.empty_like(found["plain"])
    for part in np.array_split(rows, 40):
        some = images_of(images, part)
        found["plain"][part] = plain_distances(some.dataset, part, whole.dataset, rows)
        found["registered"][part] = registered_distances(some, whole, "cpu")
    nearest = np.minimum(*(one / _unit(one, which) for one in found.values()))
    nearest = np.minimum(nearest, nearest.T)[np.triu_indices(len(rows), 1)]
    append(PAIRS, [
        {"cohort": which, "below": limit, "number": int((nearest < limit).sum()), "pairs": len(nearest),
         "nearest": f"{nearest.min():.4f}"} for limit in LIMITS
    ], ["cohort", "below", "number", "pairs", "nearest"])  # fmt: skip


def _unit(distance: np.ndarray, which: str) -> float:
    """The median distance of unseen patients to the nearest of some members, mean over draws."""
    medians = []
    for draw in range(200):
        order = numpy_generator(0, "near-pairs", which, draw).permutation(len(distance))
        members, unseen = order[:MEMBERS], order[MEMBERS : MEMBERS + UNSEEN]
        medians.append(np.median(distance[np.ix_(unseen, members)].min(axis=1)))
    return float(np.mean(medians))


def sets(draws: int) -> None:
    images = simulated("near-sets", SHOWN + 2 * MEMBERS * draws)
    shown = images_of(images, np.arange(SHOWN))
    for draw in range(draws):
        rest = SHOWN + 2 * MEMBERS * draw + np.arange(2 * MEMBERS)
        parts = (images_of(images, rest[at::2]) for at in (0, 1))
        found = judge_copies(shown, *parts, Hardware("cpu", "float32"), 0)
        judged = found.judged
        append(TABLE, [{
            "cohort": "lesions", "members": MEMBERS, "draw": draw, "searched": SHOWN, "near": int(judged.near.sum()),
            "of_unseen": judged.unseen[0], "nearest": f"{found.distance.min():.4f}",
            "nearest_unseen": f"{found.nearest_unseen:.4f}", "copies": int(judged.copies.sum()),
            "chance": f"{chance_of_near(judged.patients, judged.unseen):.4f}",
        }], COLUMNS)  # fmt: skip


def table() -> None:
    """Pairs, with what they say of 10,000 images beside 120 members (Garwood's interval); then the sets."""
    print(f"| images | pairs | {' | '.join(f'below {one:g}' for one in LIMITS)} | expected near of 10,000 (95 %) |")
    print("|---|---|" + "---|" * (len(LIMITS) + 1))
    for which, part in pd.read_csv(PAIRS).groupby("cohort", sort=False):
        counts, total = part["number"].tolist(), int(part["pairs"].iloc[0])
        number = counts[LIMITS.index(NEAR)]
        times = SHOWN * MEMBERS / total
        low, high = chi2.ppf(0.025, 2 * number) / 2 if number else 0.0, chi2.ppf(0.975, 2 * number + 2) / 2
        print(f"| {which} | {total:,} | {' | '.join(map(str, counts))} "
              f"| {times * number:.2f} ({times * low:.2f} to {times * high:.2f}) |")  # fmt: skip
    rows = pd.read_csv(TABLE)
    print(f"{len(rows)} sets of {SHOWN:,}: {(rows['near'] > 0).sum()} with a near copy ({rows['near'].sum()} images), "
          f"{(rows['copies'] > 0).sum()} with a copy, {(rows['of_unseen'] > 0).sum()} near to an unseen patient; "
          f"nearest {rows['nearest'].min():.2f} (members), {rows['nearest_unseen'].min():.2f} (unseen)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["pairs", "sets", "table"])
    parser.add_argument("--draws", type=int, default=25)
    parser.add_argument("--cohorts", nargs="+", choices=list(COHORTS), default=list(COHORTS))
    asked = parser.parse_args()
    use_threads(1)
    if asked.what == "pairs":
        for which in asked.cohorts:
            pairs(which)
    elif asked.what == "sets":
        sets(asked.draws)
    else:
        table()


if __name__ == "__main__":
    main()
