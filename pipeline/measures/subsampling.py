"""How far a figure of two sets moves with the images that happened to be drawn: random parts of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import stdtrit

Rows = np.ndarray


def margins(
    figures: Callable[[Rows, Rows], Sequence[float]],
    sizes: tuple[int, int],
    *,
    draws: int,
    seed: int,
    alpha: float = 0.05,
    most: int | None = None,
    strata: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Half the widths of intervals for figures of two sets, by the delete-d jackknife with random parts.

    A bootstrap repeats images, which looks like collapse; a part that is drawn without replacement repeats none. The
    standard deviation over parts, times the root of kept / left out, estimates that of the figure of the whole sets
    (Shao & Wu, Annals of Statistics 17, 1989); with halves the factor is 1. The half width is that by Student's
    quantile with draws - 1 degrees of freedom.

    It covers which images were drawn, taken to be independent: not the GAN's seed, and not several images of one
    patient (then it is too narrow).

    Args:
        figures: the figures of the rows that are given of the one and of the other set.
        sizes: rows in the two sets, at least 4.
        draws: parts.
        seed: of the parts.
        alpha: 1 - the share of repetitions that the interval covers.
        most: rows of the larger set in a part, at most; None = always halves.
        strata: the class of each row of the two sets, where every part shall keep the sets' shares of classes.

    Returns:
        One half width for each figure; NaN where a part gave no figure.
    """
    share = 0.5
    if most is not None:
        share = min(0.5, max(most / max(sizes), 2 / min(sizes)))
    random = np.random.default_rng(seed)
    groups = [
        [np.arange(size)]
        if strata is None
        else [np.flatnonzero(strata[side] == one) for one in np.unique(strata[side])]
        for side, size in enumerate(sizes)
    ]

    def part(of: list[Rows]) -> Rows:
        return np.concatenate([random.permutation(rows)[: int(len(rows) * share)] for rows in of])

    found = [figures(part(groups[0]), part(groups[1])) for _ in range(draws)]
    scale = (share / (1 - share)) ** 0.5 * stdtrit(draws - 1, 1 - alpha / 2)
    return np.asarray(np.std(found, axis=0, ddof=1) * scale)
