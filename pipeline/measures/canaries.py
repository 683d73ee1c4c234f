"""How private is it really, at least? ε bounded from below by canaries that were in the training by the toss of a coin.

Steinke, Nasr & Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

_TIGHT = 1e-3
_LARGEST = 50.0


def lower_bound(score: np.ndarray, included: np.ndarray, delta: float, confidence: float = 0.95) -> float:
    """The largest ε that is refuted at `confidence`; the true ε lies above it, 0 where nothing is refuted.

    The highest scores are guessed to be in and the lowest to be out, as many as there are either way: of all numbers of
    guesses from a small set, the best, each at its share of the chance to err.

    Args:
        score: [m], large where a canary looks included.
        included: [m] bool, by independent fair coins.
        delta: of the promise.
    """
    order = np.argsort(-score, kind="stable")
    number = len(score)
    sides = [side for side in (number // 50, number // 10, number // 4, number // 2) if side]
    chance = (1 - confidence) / len(sides)
    best = 0.0
    for side in sides:
        right = int(included[order[:side]].sum() + (~included[order[-side:]]).sum())
        best = max(best, _refuted(right, 2 * side, number, delta, chance))
    return best


def _refuted(right: int, guesses: int, canaries: int, delta: float, chance: float) -> float:
    """The largest ε under which so many right guesses are less likely than `chance`."""
    if p_value(right, guesses, canaries, 0.0, delta) > chance:
        return 0.0
    low, high = 0.0, _LARGEST
    while high - low > _TIGHT:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(right, guesses, canaries, middle, delta) <= chance else (low, middle)
    return low


def p_value(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """How likely so many right guesses are, at most, under (ε, δ)-privacy (theorem 5.2, δ by its appendix).

    A guess is right with chance e^ε / (1 + e^ε) at most, and what δ adds is spread over how many were right.
    """
    rate = 1 / (1 + np.exp(-epsilon))
    tail = float(binom.sf(right - 1, guesses, rate))
    below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, rate))
    spread = float(np.max(below / np.arange(1, right + 1), initial=0.0))
    return min(1.0, tail + 2 * canaries * delta * spread)
