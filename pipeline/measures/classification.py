"""Figures of a two-class decision, for many patient weightings at once."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_curve


def weighted_auroc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC under each row of case weights: the weighted Mann-Whitney statistic, ties counted half.

    Args:
        score: [n], large for the disease.
        positive: [n] bool.
        weights: [draws, n], such as how often a bootstrap draw took the case.

    Returns:
        [draws]; NaN where a draw has no positive or no negative case.
    """
    _, level = np.unique(score, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(level[order]) > 0])
    positives = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    negatives = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    won = (positives * (below + 0.5 * negatives)).sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def weighted_rate(hit: np.ndarray, among: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of `hit` [n] in the cases `among` [n], under each row of weights [draws, n]; NaN where there is none."""
    total = weights @ among.astype(float)
    return np.divide(weights @ (hit & among).astype(float), total, out=np.full(len(weights), np.nan), where=total > 0)


def youden_threshold(score: np.ndarray, positive: np.ndarray) -> float:
    """The threshold (score >= threshold is called disease) that maximises sensitivity + specificity - 1.

    Between two observed scores the middle is taken, so that a threshold is not tied to one validation image.
    Of equal maxima the one with the highest sensitivity wins. Youden, Cancer 3 (1950).
    """
    false_rate, true_rate, thresholds = roc_curve(positive, score, drop_intermediate=False)
    gain = true_rate - false_rate
    best = int(np.flatnonzero(gain >= gain.max() - 1e-12)[-1])
    chosen = float(thresholds[best])
    lower = score[score < chosen]
    if not np.isfinite(chosen):
        return float(score.max()) + 1e-6
    return (chosen + float(lower.max())) / 2 if len(lower) else chosen
