"""How far readers agree beyond chance: Cohen's kappa of two, Fleiss' of more."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from pipeline.measures.resampling import Interval, Spread, interval


def agreement(said: np.ndarray, alpha: float) -> tuple[Interval, str]:
    """Kappa of answers [readers, images], two readers or more, and in words which and what its interval covers.

    The interval is over images: these readers are given. Of Cohen's it is the asymptotic one (Fleiss, Cohen & Everitt,
    Psychol. Bull. 72 (1969)), of Fleiss' the jackknife's. NaN where everybody gives one answer to everything: chance
    agrees as well.
    """
    from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

    numbers = np.unique(said, return_inverse=True)[1].reshape(said.shape)
    number_of = int(numbers.max()) + 1
    words = f"{'Cohen’s' if len(said) == 2 else 'Fleiss’'} kappa, interval over images"
    if number_of < 2:
        return Interval(np.nan, None, None), words
    if len(said) == 2:
        table = np.zeros((number_of, number_of))
        np.add.at(table, (numbers[0], numbers[1]), 1)
        found = cohens_kappa(table)
        half = float(ndtri(1 - alpha / 2)) * float(found.std_kappa)
        bounds = Interval(float(found.kappa), float(found.kappa) - half, float(found.kappa) + half)
    else:
        counts = aggregate_raters(numbers.T, number_of)[0]
        images = len(counts)
        kappa = float(fleiss_kappa(counts))
        without = np.array([fleiss_kappa(np.delete(counts, one, axis=0)) for one in range(images)])
        variance = float(np.var(without)) * (images - 1)
        bounds = interval(kappa, [Spread(variance, images - 1)], alpha)
    return _open_if_pointlike(bounds).within(-1.0, 1.0), words


def _open_if_pointlike(found: Interval) -> Interval:
    """Without ends where all agree on everything: that no scatter was seen does not say that there is none."""
    assert found.low is not None and found.high is not None
    return found if found.high - found.low > 1e-9 else Interval(found.value, None, None)
