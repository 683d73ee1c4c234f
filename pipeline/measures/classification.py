"""Figures of a two-class decision, for many patient weightings at once."""

from __future__ import annotations

import numpy as np
from scipy.special import logit, ndtr

_MOST_THRESHOLDS = 512
_CELLS = 2**17
"""Of a table at a time: 1 MiB of float64, which a core keeps near itself."""
_EDGE = 1e-6
"""Probabilities nearer to 0 or 1 count as being so near; no bandwidth is smaller."""


def weighted_auroc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC under each row of case weights: the weighted Mann-Whitney statistic, ties counted half.

    Args:
        score: [n], large for the disease.
        positive: [n] bool.
        weights: [draws, n], such as how often a bootstrap draw took the case.

    Returns:
        [draws]; NaN where a draw has no positive or no negative case.
    """
    cases, others = np.flatnonzero(positive), np.flatnonzero(~positive)
    others = others[np.argsort(score[others], kind="stable")]
    lower, not_higher = (np.searchsorted(score[others], score[cases], side) for side in ("left", "right"))

    def of(part: np.ndarray) -> np.ndarray:
        below = np.zeros((len(part), len(others) + 1))
        np.cumsum(np.take(part, others, axis=1), axis=1, out=below[:, 1:])
        positives = np.take(part, cases, axis=1)
        twice = np.take(below, lower, axis=1) + np.take(below, not_higher, axis=1)
        won, pairs = 0.5 * np.einsum("ij,ij->i", positives, twice), positives.sum(axis=1) * below[:, -1]
        return np.divide(won, pairs, out=np.full(len(part), np.nan), where=pairs > 0)

    return np.concatenate([of(part) for part in _parts(weights, len(score))])


def weighted_rate(hit: np.ndarray, among: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of `hit` [n] in the cases `among` [n], under each row of weights [draws, n]; NaN where there is none."""
    total = weights @ among.astype(float)
    return np.divide(weights @ (hit & among).astype(float), total, out=np.full(len(weights), np.nan), where=total > 0)


def weighted_auprc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision under each row of case weights: Σ (recall step) x precision, tied scores as one step.

    Args and Returns: as in `weighted_auroc`; NaN where a draw has no positive case.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(score[order]) < 0, True])
    diseased = positive[order].astype(float)

    def of(part: np.ndarray) -> np.ndarray:
        ordered = np.take(part, order, axis=1)
        called = np.take(np.cumsum(ordered, axis=1), ends, axis=1)
        positives = np.take(np.cumsum(ordered * diseased, axis=1), ends, axis=1)
        precision = np.divide(positives, called, out=np.zeros_like(positives), where=called > 0)
        steps, total = np.diff(positives, axis=1, prepend=0.0), positives[:, -1]
        return np.divide((steps * precision).sum(axis=1), total, out=np.full(len(part), np.nan), where=total > 0)

    return np.concatenate([of(part) for part in _parts(weights, len(score))])


def weighted_brier(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean squared error of the probability `score` [n], under each row of weights (Brier, Mon. Weather Rev. 1950)."""
    return weights @ np.square(score - positive) / weights.sum(axis=1)


def weighted_ece(score: np.ndarray, positive: np.ndarray, weights: np.ndarray, bins: int = 10) -> np.ndarray:
    """Expected calibration error: the mean gap between probability and frequency over bins of equal width.

    Naeini, Cooper & Hauskrecht, AAAI 2015. It is not unbiased: it falls as cases are added, even for perfect
    probabilities, so it compares arms on the same cases and nothing else.
    """
    place = np.clip((score * bins).astype(int), 0, bins - 1)
    members = np.equal.outer(place, np.arange(bins)).astype(float)
    gaps = np.abs(weights @ (members * (score - positive)[:, None]))
    return gaps.sum(axis=1) / weights.sum(axis=1)


def _parts(rows: np.ndarray, width: int) -> list[np.ndarray]:
    """The rows in so many parts that a table of a part's rows and `width` columns is small, however many cases."""
    return np.array_split(rows, max(1, -(-len(rows) * width // _CELLS)))


def choose_threshold(rule: str, score: np.ndarray, positive: np.ndarray) -> float:
    """The threshold (score >= threshold is called disease) of a rule, on validation cases.

    Args:
        rule: `youden-smoothed`, `youden`, `sensitivity@T` or `specificity@T`: reach the target T at the least cost to
            the other rate.

    Raises:
        ValueError: there is no such rule.
    """
    name, _, target = rule.partition("@")
    if rule in _YOUDEN:
        return _YOUDEN[rule](score, positive)
    if name not in ("sensitivity", "specificity") or not target:
        known = ", ".join(_YOUDEN)
        raise ValueError(f"there is no threshold rule {rule}; use {known}, sensitivity@0.9 or specificity@0.9")
    return _target_threshold(name, float(target), score, positive)


def _target_threshold(rate: str, target: float, score: np.ndarray, positive: np.ndarray) -> float:
    thresholds, sensitivity, specificity = _operating_points(score, positive)
    if rate == "sensitivity":
        return float(thresholds[sensitivity >= target - 1e-12].max())
    return float(thresholds[specificity >= target - 1e-12].min())


def youden_threshold(score: np.ndarray, positive: np.ndarray) -> float:
    """The threshold (score >= threshold is called disease) that maximises sensitivity + specificity - 1.

    Between two observed scores the middle is taken, so that a threshold is not tied to one validation image.
    Of equal maxima the one with the highest sensitivity wins. Youden, Cancer 3 (1950).
    """
    thresholds, sensitivity, specificity = _operating_points(score, positive)
    gain = sensitivity + specificity
    return float(thresholds[np.flatnonzero(gain >= gain.max() - 1e-12)[0]])


def smoothed_youden_threshold(score: np.ndarray, positive: np.ndarray) -> float:
    """The threshold at which the Youden index of both sides' kernel-smoothed distributions is largest.

    It scatters far less from one validation set to the next than the maximum of the bare counts does, and is nearer to
    the best threshold (`benchmarks/thresholds.py`): Fluss, Faraggi & Reiser, Biometrical J. 47 (2005), with their
    kernel and bandwidth. Probabilities are smoothed as logits, other scores as they are. The middle between two
    observed scores is taken; of equal maxima the one with the highest sensitivity wins.
    """
    thresholds, _, _ = _operating_points(score, positive)
    if len(thresholds) > _MOST_THRESHOLDS:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, _MOST_THRESHOLDS).astype(int)]
    probabilities = score.min() >= 0 and score.max() <= 1
    scale = (lambda values: logit(np.clip(values, _EDGE, 1 - _EDGE))) if probabilities else np.asarray
    cuts, cases = scale(thresholds), scale(score)
    gain = _smoothed_below(cuts, cases[~positive]) - _smoothed_below(cuts, cases[positive])
    return float(thresholds[np.flatnonzero(gain >= gain.max() - 1e-12)[0]])


def _smoothed_below(cuts: np.ndarray, cases: np.ndarray) -> np.ndarray:
    """Share of `cases` below each of `cuts`, by a Gaussian kernel of Silverman's bandwidth."""
    spread = cases.std(ddof=1) if len(cases) > 1 else 0.0
    quartiles = float(np.subtract(*np.percentile(cases, [75, 25]))) / 1.34
    narrow = min(spread, quartiles) or spread
    bandwidth = max(0.9 * narrow * len(cases) ** -0.2, _EDGE)
    parts = _parts(cuts, len(cases))
    return np.concatenate([ndtr((part[:, None] - cases) / bandwidth).mean(axis=1) for part in parts])


_YOUDEN = {"youden-smoothed": smoothed_youden_threshold, "youden": youden_threshold}


def _operating_points(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds between the observed scores and beyond them, ascending, with sensitivity and specificity at each."""
    levels = np.unique(score)
    thresholds: np.ndarray = np.r_[levels[0] - 1e-6, (levels[1:] + levels[:-1]) / 2, levels[-1] + 1e-6]
    diseased, healthy = np.sort(score[positive]), np.sort(score[~positive])
    missed = np.searchsorted(diseased, thresholds) / len(diseased)
    cleared = np.searchsorted(healthy, thresholds) / len(healthy)
    return thresholds, 1 - missed, cleared
