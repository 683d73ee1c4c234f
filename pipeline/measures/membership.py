"""How well does a score tell members from non-members? Rates of a membership attack, with weights for each case.

A score is large where a case looks like a member. Rates come from its ROC curve: TPR is the share of members above a
threshold, FPR that of non-members.
"""

from __future__ import annotations

import numpy as np

_ROUNDING = 1e-9
_HELD = 2**22
"""Numbers of permutations that are held at a time."""


def advantage(score: np.ndarray, member: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Membership advantage, the largest TPR - FPR over all thresholds (Yeom et al., CSF 2018), [draws], 0 to 1.

    It is above 0 by chance alone, the more the fewer the cases: compare it with a control of as many.

    Args:
        score: [n].
        member: [n] bool.
        weights: [draws, n], such as how often a bootstrap draw took the case.
    """
    fpr, tpr = _roc(score, member, weights)
    return np.asarray(np.max(tpr - fpr, axis=1, initial=0.0))


def tpr_at_fpr(score: np.ndarray, member: np.ndarray, weights: np.ndarray, fpr: float) -> np.ndarray:
    """The largest TPR over thresholds with no more false positives than `fpr`, [draws] (Carlini et al., IEEE S&P 2022).

    Nothing is interpolated. Arguments as of `advantage`.
    """
    false, true = _roc(score, member, weights)
    return np.asarray(np.max(np.where(false <= fpr + _ROUNDING, true, 0.0), axis=1, initial=0.0))


def enough_for(fpr: float, non_members: int) -> bool:
    """Whether one false positive is no more than `fpr`: below, a TPR at this FPR would be a guess."""
    return non_members * fpr >= 1 - _ROUNDING


def _roc(score: np.ndarray, member: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FPR and TPR [draws, levels] of each threshold, from the highest score down; tied scores are one level."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    rates = []
    for side in (~member, member):
        mass = weights[:, order] * side[order]
        total = mass.sum(axis=1, keepdims=True)
        rates.append(np.cumsum(mass, axis=1)[:, ends] / np.where(total > 0, total, 1.0))
    return rates[0], rates[1]


def matched_weights(member: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Weights [n] under which non-members have the members' shares of classes.

    Members count 1; a class that only one of the two sides has counts 0.
    """
    weights = np.zeros(len(member))
    for name in np.unique(label):
        members, others = (label == name) & member, (label == name) & ~member
        if members.any() and others.any():
            weights[members] = 1.0
            weights[others] = members.sum() / others.sum()
    return weights


def standardised(score: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Scores [n] less the median of their class, over its spread (1.4826 MAD): classes then compare.

    Members and non-members of a class are taken together, so that neither is favoured.
    """
    found = np.empty(len(score))
    for name in np.unique(label):
        own = score[label == name]
        away = own - np.median(own)
        spread = 1.4826 * np.median(np.abs(away)) or np.std(own) or 1.0
        found[label == name] = away / spread
    return found


def standing_out(score: np.ndarray, member: np.ndarray) -> int:
    """How many members score higher than every non-member (the statistic of Rosenbaum, Ann. Math. Stat. 25 (1954))."""
    return int((score[member] > score[~member].max()).sum())


def standing_out_p(
    score: np.ndarray, member: np.ndarray, label: np.ndarray, random: np.random.Generator, draws: int = 5000
) -> float:
    """Chance that as many members stand out where membership means nothing: permuted within each class.

    Of one class alone it is C(m, k) / C(m + n, k), for k of m members and n non-members without ties; the answer is
    (1 + hits) / (1 + draws), which is never too small (Phipson & Smyth, SAGMB 9 (2010)).
    """
    seen = standing_out(score, member)
    if not seen:
        return 1.0
    order = np.argsort(-score, kind="stable")
    above = (score[None] > score[order][:, None]).sum(axis=1)  # cases that score higher than the one at each place
    hits, left = 0, draws
    while left:
        now = min(left, max(1, _HELD // len(score)))
        drawn = np.empty((now, len(score)), dtype=bool)
        for name in np.unique(label):
            rows = np.flatnonzero(label == name)
            drawn[:, rows] = random.permuted(np.tile(member[rows], (now, 1)), axis=1)
        hits += int((above[drawn[:, order].argmin(axis=1)] >= seen).sum())  # argmin: the highest non-member's place
        left -= now
    return (1 + hits) / (1 + draws)


def by_patient(
    score: np.ndarray, member: np.ndarray, label: np.ndarray, patient: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, membership and class of each patient: the largest score of the images, the class of most of them.

    Args:
        patient: [n] numbers; a patient's images are all of members or all of non-members.
    """
    names, index = np.unique(patient, return_inverse=True)
    highest = np.full(len(names), -np.inf)
    np.maximum.at(highest, index, score)
    classes, number = np.unique(label, return_inverse=True)
    images = np.zeros((len(names), len(classes)))
    np.add.at(images, (index, number), 1)
    joined = np.zeros(len(names), dtype=bool)
    joined[index] = member
    return highest, joined, classes[images.argmax(axis=1)]
