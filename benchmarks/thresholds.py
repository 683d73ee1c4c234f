"""Which rule finds the threshold? The Youden index of the bare counts against that of kernel-smoothed distributions.

Validation sets are drawn from known distributions; each threshold is judged on 20,000 other cases of either side. Told
are the standard deviations of sensitivity and specificity over 200 validation sets, in points, and the mean index, of
the bare counts → smoothed.

Run: .venv/bin/python benchmarks/thresholds.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from pipeline.measures.classification import choose_threshold

Draw = Callable[[np.random.Generator, int], np.ndarray]
WORLDS: dict[str, tuple[Draw, Draw]] = {
    "normal": (lambda r, n: r.normal(0, 1, n), lambda r, n: r.normal(1.5, 1, n)),
    "skewed": (lambda r, n: r.gamma(1, 1, n) - 2, lambda r, n: r.gamma(3, 1, n) - 2),
    "saturated": (lambda r, n: r.normal(-6, 6, n), lambda r, n: r.normal(6, 6, n)),
    "two kinds of disease": (
        lambda r, n: r.normal(0, 1, n),
        lambda r, n: np.where(r.random(n) < 0.6, r.normal(3, 0.7, n), r.normal(0, 1, n)),
    ),
    "nearly separate": (lambda r, n: r.normal(0, 1, n), lambda r, n: r.normal(5, 1, n)),
}
"""Logits of healthy and of diseased cases."""
SIZES = ((10, 10), (30, 30), (100, 100), (180, 20))
RULES = ("youden", "youden-smoothed")
REPEATS = 200


def judged(rule: str, healthy: Draw, diseased: Draw, sizes: tuple[int, int]) -> tuple[float, float, float]:
    random = np.random.default_rng(0)
    tests = [expit(side(random, 20_000)) for side in (healthy, diseased)]
    found = []
    for _ in range(REPEATS):
        score = expit(np.r_[healthy(random, sizes[0]), diseased(random, sizes[1])])
        cut = choose_threshold(rule, score, np.arange(len(score)) >= sizes[0])
        found.append(((tests[1] >= cut).mean(), (tests[0] < cut).mean()))
    sensitivity, specificity = np.transpose(found)
    return 100 * sensitivity.std(), 100 * specificity.std(), float((sensitivity + specificity - 1).mean())


def main() -> None:
    print("| scores | healthy / diseased | SD of sensitivity | SD of specificity | mean Youden index |")
    print("|---|---|---|---|---|")
    for name, sides in WORLDS.items():
        for sizes in SIZES:
            both = [judged(rule, *sides, sizes) for rule in RULES]
            cells = [" → ".join(f"{value:.{digits}f}" for value in pair)
                     for pair, digits in zip(zip(*both, strict=True), (1, 1, 3), strict=True)]  # fmt: skip
            print(f"| {name} | {sizes[0]} / {sizes[1]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
