"""Scores on different scales as one: ranks among the scores of normal patients, and their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_DIGITS = 9
"""Of mean ranks: the same ranks in another order make the same mean."""


def share_below(score: np.ndarray, reference: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The share of the reference that lies below each score [n], from 0 to 1.

    What lies above all of it has rank 1, however far above. A patient with m images counts 1/m for each.

    Args:
        reference: [m] scores.
        patients: [m] patient of each.

    Returns:
        [n]; 0 where there is no reference.
    """
    _, index, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.argsort(reference, kind="stable")
    below = np.concatenate([[0.0], np.cumsum((1 / counts)[index][order])])
    return below[np.searchsorted(reference[order], score, side="left")] / max(1, len(counts))


def mean_rank(ranks: Sequence[np.ndarray]) -> np.ndarray:
    """The mean [n] of the members' ranks [n] each, to nine digits, so that the members' order does not matter."""
    mean: np.ndarray = np.mean(ranks, axis=0).round(_DIGITS)
    return mean
