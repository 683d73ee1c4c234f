"""How well one property of images tells another one, such as the site the class, with an interval over patients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.measures.resampling import MIN_PATIENTS, Interval, patient_weights

Floats = NDArray[np.float64]


def told_from(
    groups: NDArray[np.int64],
    labels: NDArray[np.int64],
    patients: NDArray[np.str_],
    seed: int,
    draws: int = 2000,
    alpha: float = 0.05,
) -> Interval:
    """Balanced accuracy of calling every image by the class that is likeliest in its group, from its group alone.

    Likeliest where the classes are equally frequent: that of the largest share among the groups' shares of each class.
    The calls are made from the same images, so the figure is never below chance, 1 / number of classes, and without an
    association it lies somewhat above it; with two groups of 95 and 5 % it is 0.95. The percentile interval is over
    patients; none is given below 10.

    Args:
        groups, labels: [n] numbers from 0 on; every label occurs.
        patients: [n] patient of each image.
    """
    random = np.random.default_rng(seed)
    cells = np.zeros((len(labels), groups.max() + 1, labels.max() + 1))
    cells[np.arange(len(labels)), groups, labels] = 1
    flat = cells.reshape(len(labels), -1)
    weights = np.vstack([np.ones((1, len(labels))), patient_weights(patients, draws, random, labels)])
    figures = balanced_accuracy_of_groups((weights @ flat).reshape(-1, *cells.shape[1:]))
    if len(np.unique(patients)) < MIN_PATIENTS:
        return Interval(float(figures[0]), None, None)
    low, high = np.quantile(figures[1:], [alpha / 2, 1 - alpha / 2])
    return Interval(float(figures[0]), float(low), float(high))


def balanced_accuracy_of_groups(tables: Floats) -> Floats:
    """[draws] of `tables` [draws, groups, classes] of counts; of equally likely classes each counts as half right."""
    rates = tables / np.maximum(tables.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    best = rates == rates.max(axis=2, keepdims=True)
    right: Floats = (rates * best / best.sum(axis=2, keepdims=True)).sum(axis=1).mean(axis=1)
    return right
