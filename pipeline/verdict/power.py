"""The smallest difference that a data set can show: told before anything is trained, and measured in the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from scipy.special import ndtri, stdtrit

from pipeline.core.errors import DataError
from pipeline.core.patients import patient_units
from pipeline.measures.resampling import Estimate

POWER = 0.8
MOST_ALIKE, LEAST_ALIKE = 0.97, 0.7
"""How the errors of two arms' means on the same patients correlate, at best and at worst: the middle half of the
primary rows of benchmarks/results/hunt.csv lies between 0.79 and 0.97, the scatter of the fits counted."""
_ASSUMED_AUROC = 0.85
_ASSUMED_RATE = 0.8


def smallest_differences(
    endpoint: str, alpha: float, n_pos_patients: float, n_neg_patients: float
) -> tuple[float, float]:
    """Smallest true gain in the endpoint that the interval would exclude 0 for in 80 % of runs, before a run.

    A normal approximation for two arms on the same patients, at an AUROC of 0.85 (variance after Hanley & McNeil,
    Radiology 143 (1982)) or a rate of 0.8. How alike the arms err is not known before the run, and decides most: the
    first difference is for a correlation of 0.97, the second one for 0.7.

    Args:
        n_pos_patients, n_neg_patients: test patients of the disease side and of the other, over all folds.

    Returns:
        Differences of the endpoint (0.02 = 2 points); infinite where a side has no patient.
    """
    if min(n_pos_patients, n_neg_patients) <= 0:
        return float("inf"), float("inf")
    if endpoint == "auroc":
        variance = hanley_mcneil_variance(_ASSUMED_AUROC, n_pos_patients, n_neg_patients)
    else:
        among = n_pos_patients if endpoint == "sensitivity" else n_neg_patients
        variance = _ASSUMED_RATE * (1 - _ASSUMED_RATE) / among
    quantiles = float(ndtri(1 - alpha / 2) + ndtri(POWER))
    best, worst = (quantiles * (2 * variance * (1 - alike)) ** 0.5 for alike in (MOST_ALIKE, LEAST_ALIKE))
    return best, worst


def patients_needed(
    endpoint: str, alpha: float, margin: float, n_pos_patients: int, n_neg_patients: int
) -> tuple[int, int]:
    """Test patients, divided into the two sides as they are now, at which a gain of `margin` is the smallest one that
    can be shown: where two arms err most alike, and least.

    Args:
        margin: a difference of the endpoint (0.02 = 2 points).
        n_pos_patients, n_neg_patients: at least 1 each.
    """
    needed = []
    for place in (0, 1):
        low, high = 1e-3, 1e6  # times the patients that there are
        while high / low > 1.001:
            middle = (low * high) ** 0.5
            shown = smallest_differences(endpoint, alpha, n_pos_patients * middle, n_neg_patients * middle)[place]
            low, high = (middle, high) if shown > margin else (low, middle)
        needed.append(math.ceil((n_pos_patients + n_neg_patients) * high))
    return needed[0], needed[1]


def expectation(
    endpoint: str, alpha: float, margin: float, n_pos_patients: int, n_neg_patients: int, *, unit: str = "patients"
) -> str:
    """What a run can show, in words: the differences that are seen, the margin, and the patients that it would take.

    Args:
        unit: `images` where patients are not known, so that each image counts as one.

    Raises:
        DataError: a side has not two test patients, so that nothing can be compared.
    """
    patients = f"{n_pos_patients} with the disease and {n_neg_patients} without"
    if min(n_pos_patients, n_neg_patients) < 2:
        raise DataError(
            f"An arm cannot be compared with another one: the tested patients are {patients}, and each side needs two "
            "at least (for an interval, ten in all). Raise data.split.test, use data.split.kind: kfold, which tests "
            "every patient once, or add patients."
        )
    best, worst = smallest_differences(endpoint, alpha, n_pos_patients, n_neg_patients)
    fewest, most = patients_needed(endpoint, alpha, margin, n_pos_patients, n_neg_patients)
    needed = f"{_rounded(fewest)} to {_rounded(most)}"
    name = endpoint.upper() if endpoint in ("auroc", "auprc") else endpoint.replace("_", " ")
    goal = f"To see {_points(margin)} points of {name} you need about {needed} test {unit}"
    begin = f"With {n_pos_patients + n_neg_patients} test {unit} ({patients})"
    range_ = f"{_points(best)} to {_points(worst)} points of {name}"
    if best > margin:
        return (
            f"{begin} only differences of {range_} can be seen, and your margin is {_points(margin)}: expect "
            f'"inconclusive". {goal}, as two arms err more or less alike on them.'
        )
    if worst > margin:
        return (
            f"{begin} differences of {range_} can be seen, as two arms err more or less alike on them, and your margin "
            f'is {_points(margin)}: the verdict may be "inconclusive". {goal}.'
        )
    return f"{begin} differences of {range_} can be seen, and your margin is {_points(margin)}: these are enough."


def _points(difference: float) -> str:
    """A difference in points: two digits, and no more than the guess behind it deserves."""
    return f"{100 * difference:.2g}" if difference < 1 else "100"


def _rounded(patients: int) -> str:
    """To two digits: 5,943 patients are about 5,900."""
    return f"{round(patients, 2 - len(str(patients))):,}"


def shown_difference(found: Estimate, alpha: float) -> float:
    """The same after the run, from the error that the interval has, with its degrees of freedom."""
    quantiles = stdtrit(found.freedom, 1 - alpha / 2) + stdtrit(found.freedom, POWER)
    return float(quantiles) * found.error if found.error else 0.0


def patients_tested(table: pd.DataFrame, positive: Sequence[str]) -> tuple[int, int]:
    """Patients tested in any fold, with the disease and without; an image without patient id counts as a patient.

    Args:
        table: columns split, label, image_id and patient_id.
    """
    tested = table[table["split"] == "test"]
    diseased = tested["label"].isin(positive).groupby(patient_units(tested)).any()
    return int(diseased.sum()), int((~diseased).sum())


def patients_a_side(table: pd.DataFrame, positive: Sequence[str]) -> tuple[int, int]:
    """Patients with a tested image of the disease side, and with one of the other; one with both counts on both.

    What images are compared by where hardly a patient is without the disease: several lesions and clear slices each.
    """
    tested = table[table["split"] == "test"]
    units, diseased = patient_units(tested), tested["label"].isin(positive)
    return int(units[diseased].nunique()), int(units[~diseased].nunique())


def sides_tested(table: pd.DataFrame, positive: Sequence[str], unit: str) -> tuple[int, int]:
    """`patients_tested`, or `patients_a_side` where images are compared and a side has hardly a patient of its own."""
    tested = patients_tested(table, positive)
    return patients_a_side(table, positive) if min(tested) < 2 and unit == "image" else tested


def hanley_mcneil_variance(auroc: float, n_pos: float, n_neg: float) -> float:
    """Variance of an AUROC (Hanley & McNeil 1982, equation 1, with the exponential model's Q1 and Q2)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (n_pos - 1) * (q1 - auroc**2) + (n_neg - 1) * (q2 - auroc**2)
    return spread / (n_pos * n_neg)
