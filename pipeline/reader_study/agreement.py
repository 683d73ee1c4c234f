"""How far readers agree beyond chance: Cohen's kappa of two, Fleiss' of more."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from pipeline.measures.resampling import Interval, Spread, interval


def agreement(said: np.ndarray, alpha: float) -> tuple[Interval, str]:
    """Kappa of answers [readers, images], two readers or more, and in words which and what its interval covers.

    Of two it is the asymptotic one over images (Fleiss, Cohen & Everitt, Psychol. Bull. 72 (1969)): two readers cannot
    show how far others would agree. Of more it covers readers and images: the jackknife's variance over readers and
    that over images are added (as Gwet, Psychometrika 73 (2008), for readers who are a sample), which counts the noise
    of single answers twice and so errs to the wide side. NaN where everybody gives one answer to everything: chance
    agrees as well.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    numbers = np.unique(said, return_inverse=True)[1].reshape(said.shape)
    number_of, readers = int(numbers.max()) + 1, len(said)
    if readers == 2:
        words = "Cohen’s kappa of these two readers, interval over images"
    else:
        words = "Fleiss’ kappa, interval over readers and images"
    if number_of < 2:
        return Interval(np.nan, None, None), words
    if readers == 2:
        table = np.zeros((number_of, number_of))
        np.add.at(table, (numbers[0], numbers[1]), 1)
        found = cohens_kappa(table)
        half = float(ndtri(1 - alpha / 2)) * float(found.std_kappa)
        bounds = Interval(float(found.kappa), float(found.kappa) - half, float(found.kappa) + half)
    else:
        given = numbers[:, :, None] == np.arange(number_of)  # [readers, images, answers]
        counts = given.sum(axis=0)
        spreads = [_jackknife(np.array([_fleiss(counts - own) for own in given])), _jackknife(_without_images(counts))]
        bounds = interval(_fleiss(counts), spreads, alpha)
    return _open_if_pointlike(bounds).within(-1.0, 1.0), words


def _fleiss(counts: np.ndarray) -> float:
    """Fleiss' kappa of how many readers gave each answer, [images, answers]."""
    alike, shares = _agreeing(counts)
    return float(_beyond_chance(alike.mean(), shares.mean(axis=0)))


def _without_images(counts: np.ndarray) -> np.ndarray:
    """Fleiss' kappa without each of the images."""
    alike, shares = _agreeing(counts)
    left = len(counts) - 1
    return _beyond_chance((alike.sum() - alike) / left, (shares.sum(axis=0) - shares) / left)


def _agreeing(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image the share of pairs of readers who agree, [images], and of each answer, [images, answers]."""
    readers = counts[0].sum()
    return (np.square(counts).sum(axis=1) - readers) / (readers * (readers - 1)), counts / readers


def _beyond_chance(alike: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(alike - chance) / (1 - chance); 1 where everybody gives one answer to everything."""
    chance = np.square(shares).sum(axis=-1)
    return np.where(chance < 1, (alike - chance) / np.where(chance < 1, 1 - chance, 1.0), 1.0)


def _jackknife(without: np.ndarray) -> Spread:
    """Variance of a figure from what it is without each of its units."""
    return Spread(float(np.var(without)) * (len(without) - 1), len(without) - 1)


def _open_if_pointlike(found: Interval) -> Interval:
    """Without ends where all agree on everything: that no scatter was seen does not say that there is none."""
    assert found.low is not None and found.high is not None
    return found if found.high - found.low > 1e-9 else Interval(found.value, None, None)
