"""How often is a healthy generator's image a near copy of a training image by chance, where many are searched?

    RADAUG_DATA=DATA .venv/bin/python benchmarks/near_chance.py [--draws 20]     # nih-cxr…, adrenalmnist3d in DATA
    .venv/bin/python benchmarks/near_chance.py table

A draw takes members and a third as many validation images from a cohort of benchmarks/audit_calibration.py, one image a
patient; all other patients, whom no generator has seen, stand for a healthy generator's images: so many are searched.
Counted are the near copies
of members (`copies`) and of as many patients who are neither members nor shown (`of_unseen`), the images of the
control. Rows are added to benchmarks/results/near_chance.csv as they come.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from audit_calibration import COHORTS, ROOT, images_of
from rows import append

from pipeline.core.compute import Hardware
from pipeline.core.seeds import numpy_generator
from pipeline.core.threads import use_threads
from pipeline.measures.near_copies import NEAR, near_copies
from pipeline.privacy.near_search import nearest_known

TABLE = ROOT / "benchmarks" / "results" / "near_chance.csv"
COLUMNS = ["cohort", "members", "draw", "searched", "copies", "of_unseen", "of_validation", "nearest", "refused"]


def judge(which: str, images: np.ndarray, members: int, draw: int) -> dict[str, object]:
    """One draw's row."""
    order = numpy_generator(0, "near-chance", which, members, draw).permutation(len(images))
    seen, unseen, val, shown = np.split(order, np.cumsum([members, members, members // 3]))
    row: dict[str, object] = {"cohort": which, "members": members, "draw": draw, "searched": len(shown)}
    for name, known in (("copies", seen), ("of_unseen", unseen)):
        sets = (images_of(images, np.sort(one)) for one in (shown, known, val))
        found, usual = nearest_known(*sets, Hardware("cpu", "float32"), 0)
        judged = near_copies(found.distance, usual.distance)
        row[name] = round(judged.share * len(shown))
        if name == "copies":
            nearest = found.distance.min() / np.median(usual.distance)
            row |= {"of_validation": round(judged.control * len(val)), "nearest": f"{nearest:.4f}"}
            row["refused"] = judged.beyond_chance
    return row


def table() -> None:
    """A row a cohort: how many images are near copies by chance, and of how many 10,000 would hold one."""
    print("| images | members | draws | searched | near copies of members | of unseen patients | nearest | refused |")
    print("|---|---|---|---|---|---|---|---|")
    for (which, members), part in pd.read_csv(TABLE).groupby(["cohort", "members"], sort=False):
        print(f"| {which} | {members} | {len(part)} | {part['searched'].iloc[0]:,} | {part['copies'].sum()} "
              f"| {part['of_unseen'].sum()} | {part['nearest'].min():.2f} | {part['refused'].sum()} |")  # fmt: skip
    print(f"An image is one below {NEAR}, where 1 is validation images' median distance.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["table"])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--members", type=int, default=120)
    parser.add_argument("--cohorts", nargs="+", choices=list(COHORTS), default=list(COHORTS))
    asked = parser.parse_args()
    if asked.what == "table":
        return table()
    use_threads(1)
    for which in asked.cohorts:
        images = COHORTS[which]().images
        for draw in range(asked.draws):
            append(TABLE, [judge(which, images, asked.members, draw)], COLUMNS)
    return None


if __name__ == "__main__":
    main()
