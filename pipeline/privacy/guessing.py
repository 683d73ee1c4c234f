"""Values of patients that an attack guesses, and how much better it guesses those of training patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from pipeline.core.errors import DataError
from pipeline.measures.resampling import MIN_PATIENTS
from pipeline.privacy.attack import Candidates

_BANDS, _FEW_VALUES = 3, 10


def values_of(candidates: Candidates, column: str) -> np.ndarray:
    """The column's values of all candidates, as text; numbers of many values in three bands of equally many images.

    Raises:
        DataError: there is no such column.
    """
    images = candidates.images
    if column not in images.dataset.manifest:
        raise DataError(f"privacy.sensitive: the data have no column {column}. Name columns of the source's table.")
    text = images.dataset.manifest[column].iloc[images.rows].fillna("").astype(str).str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    if numbers[text != ""].isna().any() or text[text != ""].nunique() <= _FEW_VALUES:
        return text.to_numpy(dtype=str)
    bands = pd.qcut(numbers, _BANDS, labels=False, duplicates="drop")
    return np.where(text == "", "", bands.fillna(-1).astype(int).astype(str).to_numpy(dtype=str))


@dataclass(frozen=True)
class Guessed:
    """How often a column's values are guessed right.

    Attributes:
        members, unseen: shares of the training and of the unseen patients.
        base: share of the commonest value among all patients: right without a look at any image.
        difference, low, high: members less unseen ones, with its interval.
        patients: numbers of members and of unseen patients whose value is known.
        refused: why there are no figures, where there are too few patients.
    """

    members: float | None = None
    unseen: float | None = None
    base: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    patients: tuple[int, int] = (0, 0)
    refused: str = ""


def guessed(
    right: np.ndarray, truth: np.ndarray, member: np.ndarray, patient: np.ndarray, alpha: float = 0.05
) -> Guessed:
    """Shares of right guesses, each patient counting once, with Welch's interval of their difference.

    Args:
        right: [N] of 0 and 1, NaN where the truth is not known; truth: [N] values.
        member: [N] bool; patient: [N] numbers, none of which is on both sides.
    """
    table = pd.DataFrame({"right": right, "truth": truth, "member": member, "patient": patient}).dropna()
    one = table.groupby("patient").agg(right=("right", "mean"), truth=("truth", "first"), member=("member", "first"))
    sides = [one["right"][one["member"] == side].to_numpy() for side in (True, False)]
    number = (len(sides[0]), len(sides[1]))
    if min(number) < MIN_PATIENTS:
        return Guessed(
            patients=number,
            refused=f"not given: {number[0]} training and {number[1]} unseen patients, {MIN_PATIENTS} needed",
        )
    means = [float(side.mean()) for side in sides]
    errors = [float(side.var(ddof=1)) / len(side) for side in sides]
    weight = sum(error**2 / (len(side) - 1) for error, side in zip(errors, sides, strict=True))
    freedom = sum(errors) ** 2 / weight if weight else 1.0
    half = float(stdtrit(freedom, 1 - alpha / 2)) * sum(errors) ** 0.5
    gap = means[0] - means[1]
    base = float(one["truth"].value_counts(normalize=True).max())
    return Guessed(means[0], means[1], base, gap, gap - half, gap + half, number)
