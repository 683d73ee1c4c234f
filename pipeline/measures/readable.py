"""Can a property of images be read off their features, apart from what the class tells of it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.measures.classification import weighted_auroc
from pipeline.measures.resampling import MIN_PATIENTS, Interval, patient_weights

Floats = NDArray[np.float64]

_FOLDS, _REPEATS, _PENALTY = 5, 4, 1.0


@dataclass(frozen=True)
class Readable:
    """How well a property is told from features of images of unseen patients.

    Attributes:
        auroc: mean over the property's values, each against the rest, among images of one class; with an interval
            over patients.
        chance: the same after shuffling the property among patients, on average.
        p_value: share of shufflings that reach `auroc`.
    """

    auroc: Interval
    chance: float
    p_value: float


def readable(
    features: Floats,
    values: NDArray[np.bool_],
    labels: NDArray[np.int64],
    patients: NDArray[np.str_],
    seed: int,
    shufflings: int = 999,
    alpha: float = 0.05,
) -> Readable | None:
    """Cross-validated by patient: a linear classifier learns the property, and is asked about other patients.

    Only pairs of images of one class and one fold are compared, so that a property that goes with the class is not
    found by way of the disease, and scores of different classifiers are never mixed. The classifier is least squares
    with a ridge on standardised features (for two values Fisher's discriminant, shrunk). Unlike logistic regression its
    answers are linear in what it is taught, so every shuffling of the property is learnt anew for the price of one
    matrix product. Shuffled are (patient, value) units among those with images of the same classes, so that a patient's
    many images count as one (Ojala & Garriga, JMLR 11 (2010)). The interval takes the classifiers as given; whether the
    property is told at all is for the p-value to say.

    Args:
        features: [n, D].
        values: [n, V] which of the property's values an image has.
        labels: [n] class of each image; -1 where unknown, a class of its own.

    Returns:
        None where no fold has two images of a class to compare.
    """
    kernel = _kernel(features)
    units, strata = _units(values, labels, patients)
    random = np.random.default_rng(seed)
    taught = np.stack([units, *(_shuffled(units, strata, random) for _ in range(shufflings))])  # [1 + S, n]
    targets = values[np.unique(units, return_index=True)[1]]  # [units, V]
    weights = patient_weights(patients, shufflings, random)
    won, pairs = np.zeros((values.shape[1], 1 + shufflings)), np.zeros((values.shape[1], 1 + shufflings))
    drawn, drawn_pairs = np.zeros((values.shape[1], shufflings)), np.zeros((values.shape[1], shufflings))
    for train, test in _folds(patients, random):
        solve = np.linalg.solve(kernel[np.ix_(train, train)] + _PENALTY * np.eye(len(train)), kernel[train][:, test])
        for number in range(values.shape[1]):
            learnt = targets[:, number][taught].astype(np.float64)  # [1 + S, n]
            mean = learnt[:, train].mean(axis=1, keepdims=True)
            score = (learnt[:, train] - mean) @ solve
            for members in _classes(labels[test]):
                truth = learnt[:, test[members]] > 0
                part, count = _wins(score[:, members], truth)
                won[number] += part
                pairs[number] += count
                part, count = _weighted_wins(score[0, members], truth[0], weights[:, test[members]])
                drawn[number] += part
                drawn_pairs[number] += count
    if not (pairs[:, 0] > 0).all():
        return None
    figures = _ratio(won, pairs).mean(axis=0)
    draws = _ratio(drawn, drawn_pairs).mean(axis=0)
    null = figures[1:][np.isfinite(figures[1:])]
    bounds = _bounds(draws, len(np.unique(patients)), alpha)
    p_value = (1 + int((null >= figures[0] - 1e-12).sum())) / (1 + len(null))
    return Readable(Interval(float(figures[0]), *bounds), float(null.mean()), p_value)


def _kernel(features: Floats) -> Floats:
    """Inner products of standardised features, 1 on the diagonal on average."""
    spread = features.std(axis=0)
    standard = ((features - features.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)).astype(np.float64)
    product = standard @ standard.T
    return product / max(float(np.trace(product)) / len(product), 1e-12)


def _units(
    values: NDArray[np.bool_], labels: NDArray[np.int64], patients: NDArray[np.str_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The (patient, value) unit of each image [n], and a number for the classes that each unit has images of."""
    names = np.unique(patients, return_inverse=True)[1]
    units = np.unique(np.column_stack([names, values]), axis=0, return_inverse=True)[1].reshape(-1)
    classes = np.unique(labels, return_inverse=True)[1]
    present = np.zeros((units.max() + 1, classes.max() + 1), dtype=bool)
    present[units, classes] = True
    return units, np.unique(present, axis=0, return_inverse=True)[1].reshape(-1)


def _shuffled(units: NDArray[np.int64], strata: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """The unit whose value each image gets [n]: dealt anew among units with images of the same classes."""
    other = np.arange(len(strata))
    for number in np.unique(strata):
        members = np.flatnonzero(strata == number)
        other[members] = random.permutation(members)
    return other[units]


def _folds(
    patients: NDArray[np.str_], random: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to learn from and rows of other patients, several times over."""
    names, index = np.unique(patients, return_inverse=True)
    for _ in range(_REPEATS):
        fold = random.permutation(len(names))[index] % _FOLDS
        for number in range(min(_FOLDS, len(names))):
            yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _classes(labels: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
    return [np.flatnonzero(labels == number) for number in np.unique(labels)]


def _wins(score: Floats, truth: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Pairs won and pairs in all, row by row of [S, n]."""
    from scipy.stats import rankdata  # here, because it brings much of SciPy

    ranks = rankdata(score, axis=1)
    count = truth.sum(axis=1).astype(np.float64)
    won = np.where(truth, ranks, 0).sum(axis=1) - count * (count + 1) / 2
    return won, count * (truth.shape[1] - count)


def _weighted_wins(score: Floats, truth: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    pairs = (weights @ truth) * (weights @ ~truth)
    return np.nan_to_num(weighted_auroc(score, truth, weights)) * pairs, pairs


def _ratio(won: Floats, pairs: Floats) -> Floats:
    return np.divide(won, pairs, out=np.full(won.shape, np.nan), where=pairs > 0)


def _bounds(draws: Floats, patients: int, alpha: float) -> tuple[float | None, float | None]:
    usable = draws[np.isfinite(draws)]
    if patients < MIN_PATIENTS or len(usable) < 0.95 * len(draws):
        return None, None
    low, high = np.quantile(usable, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
