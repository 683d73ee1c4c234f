"""How often do the intervals of a reader study hold the truth? Simulated readers, at chance, in between, near perfect.

    .venv/bin/python benchmarks/reader_intervals.py [--studies 1000]     # a minute on one core
    .venv/bin/python benchmarks/reader_intervals.py kappa                # and of kappa, half a minute
    .venv/bin/python benchmarks/reader_intervals.py table

Answers follow a probit model: readers have a bias towards "synthetic" (deviation `readers_differ`), images are hard or
easy for everybody (deviation 0.6), new ones in every study. The truth is known then. Counted is how often intervals of
95 % hold it: of the accuracy, the sensitivity, and the difference between sensitivity and specificity, which is 0.
Kappa's truth is that of endlessly many readers and images. Rows are added to benchmarks/results/reader_intervals.csv
and reader_kappa.csv.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from rows import append
from scipy.stats import norm

from pipeline.core.seeds import numpy_generator
from pipeline.measures.crossed import crossed, difference_interval, share_interval
from pipeline.reader_study.agreement import agreement

TABLE = Path(__file__).parent / "results" / "reader_intervals.csv"
COLUMNS = [
    "readers", "images", "readers_differ", "accuracy", "studies", "accuracy_held", "sensitivity_held",
    "difference_held", "accuracy_width",
]  # fmt: skip
KAPPA_TABLE = TABLE.with_name("reader_kappa.csv")
KAPPA_COLUMNS = ["readers", "images", "readers_differ", "accuracy", "studies", "kappa", "mean", "held", "width"]
_HARD = 0.6


def answers(mean: float, bias: np.ndarray, images: int, random: np.random.Generator) -> np.ndarray:
    """Right or wrong, [readers, images]."""
    hard = random.normal(0, _HARD, images)
    return (mean + bias[:, None] + hard + random.normal(0, 1, (len(bias), images)) > 0).astype(float)


def row(readers: int, images: int, differ: float, mean: float, studies: int) -> dict[str, object]:
    """`images` are real, and as many synthetic."""
    random = numpy_generator(0, "reader intervals", readers, images, str(differ), str(mean))
    truth = float(norm.cdf(mean / np.sqrt(1 + _HARD**2 + differ**2)))
    held, width = np.zeros(3), 0.0
    for _ in range(studies):
        bias = random.normal(0, differ, readers)
        first, second = (answers(mean, sign * bias, images, random) for sign in (1, -1))
        one, other = crossed([(1.0, first)]), crossed([(1.0, second)])
        both = share_interval(crossed([(0.5, first), (0.5, second)]), 0.05)
        found = [both, share_interval(one, 0.05), difference_interval(one, other, 0.05)]
        held += [interval.low <= true <= interval.high for interval, true in zip(found, (truth, truth, 0), strict=True)]
        width += both.high - both.low
    shares = dict(zip(COLUMNS[5:8], (held / studies).round(3), strict=True))
    return {"readers": readers, "images": 2 * images, "readers_differ": differ, "accuracy": f"{truth:.3f}",
            "studies": studies, **shares, "accuracy_width": f"{width / studies:.3f}"}  # fmt: skip


def kappa_row(readers: int, images: int, differ: float, mean: float, studies: int) -> dict[str, object]:
    """As `row`, of agreement on "real or synthetic"; an interval without ends holds nothing."""
    random = numpy_generator(0, "reader kappas", readers, images, str(differ), str(mean))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)  # over images; half are called synthetic in all
    called = norm.cdf((mean + _HARD * nodes) / np.sqrt(1 + differ**2))
    alike = float((weights * (called**2 + (1 - called) ** 2)).sum() / weights.sum())
    truth, held, width, found_mean = 2 * alike - 1, 0, [], []
    for _ in range(studies):
        bias = random.normal(0, differ, readers)
        real, synthetic = (answers(mean, sign * bias, images, random) for sign in (-1, 1))
        found, _ = agreement(np.concatenate([1 - real, synthetic], axis=1), 0.05)
        found_mean.append(found.value)
        if found.low is not None:
            held += found.low <= truth <= found.high
            width.append(found.high - found.low)
    accuracy = float(norm.cdf(mean / np.sqrt(1 + _HARD**2 + differ**2)))
    return {"readers": readers, "images": 2 * images, "readers_differ": differ, "accuracy": f"{accuracy:.3f}",
            "studies": studies, "kappa": f"{truth:.3f}", "mean": f"{np.nanmean(found_mean):.3f}",
            "held": round(held / studies, 3), "width": f"{np.mean(width):.3f}"}  # fmt: skip


def table() -> None:
    """A row a number of readers: the least, the middle and the greatest share of intervals that hold the truth."""
    found = pd.read_csv(TABLE)
    print("| readers | images | accuracy | sensitivity | difference | width of the accuracy's |")
    print("|---|---|---|---|---|---|")
    for (readers, images), part in found.groupby(["readers", "images"]):
        shares = [
            f"{part[name].min():.3f} to {part[name].max():.3f}, median {part[name].median():.3f}"
            for name in COLUMNS[5:8]
        ]
        widths = f"{part['accuracy_width'].min():.2f} to {part['accuracy_width'].max():.2f}"
        print(f"| {readers} | {images} | {' | '.join(shares)} | {widths} |")
    print("| readers | images | kappa's interval holds it | its width |\n|---|---|---|---|")
    for (readers, images), part in pd.read_csv(KAPPA_TABLE).groupby(["readers", "images"]):
        held, width = part["held"], part["width"]
        shares = f"{held.min():.3f} to {held.max():.3f}, median {held.median():.3f}"
        print(f"| {readers} | {images} | {shares} | {width.min():.2f} to {width.max():.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["table", "kappa"])
    parser.add_argument("--studies", type=int, default=1000)
    asked = parser.parse_args()
    if asked.what == "table":
        return table()
    sizes, cases = ((2, 30), (3, 30), (5, 30), (10, 50)), product((0.0, 0.3, 0.8), (0.0, 0.7, 1.5, 2.5))
    if asked.what == "kappa":
        for (readers, images), (differ, mean) in product(sizes[1:], cases):
            append(KAPPA_TABLE, [kappa_row(readers, images, differ, mean, asked.studies)], KAPPA_COLUMNS)
        return None
    for (readers, images), (differ, mean) in product(sizes, cases):
        append(TABLE, [row(readers, images, differ, mean, asked.studies)], COLUMNS)
    return None


if __name__ == "__main__":
    main()
