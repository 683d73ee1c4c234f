"""The reliability plot: are the classifiers' probabilities to be taken at their word?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.report.style import BLACK, BLUE, GREY, for_phone, house_style, panels, png
from pipeline.report.words import arm_lines

BINS = 10
_FEWEST = 5


def reliability_curve(score: np.ndarray, diseased: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share diseased, and number of images in each bin of equal width that has 5 images or more."""
    place = np.clip((score * BINS).astype(int), 0, BINS - 1)
    sizes = np.bincount(place, minlength=BINS)
    full = sizes >= _FEWEST
    means = [np.bincount(place, weights=values, minlength=BINS)[full] / sizes[full] for values in (score, diseased)]
    return means[0], means[1], sizes[full]


def reliability_plot(predictions: pd.DataFrame, arms: Sequence[str]) -> tuple[bytes, bytes]:
    """One panel an arm: share of diseased test images over the predicted probability; grey dots are single fits.

    The same for a phone.

    Args:
        predictions: test rows with arm, fold, seed, gan_seed, `disease_score` and `diseased`.
    """
    with house_style():
        columns = min(4, max(2, len(arms)))
        figure, axes = panels(len(arms), columns=columns, height=9.6 / columns + 0.45)
        for axis, arm in zip(axes, arms, strict=True):
            mine = predictions[predictions["arm"] == arm]
            for _, fit in mine.groupby(["fold", "seed", "gan_seed"]):
                axis.plot(*_curve(fit)[:2], ".", color=GREY, alpha=0.6, ms=4)
            mean, share, _ = _curve(mine)
            axis.plot(mean, share, "o-", color=BLUE, lw=2, ms=5)
            axis.plot([0, 1], [0, 1], color=BLACK, lw=0.8, ls=":")
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", title=arm_lines(arm))
            axis.set(xlabel="Predicted probability", ylabel="Share with the disease")
        return png(figure), png(for_phone(figure))


def _curve(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return reliability_curve(rows["disease_score"].to_numpy(float), rows["diseased"].to_numpy(float))
