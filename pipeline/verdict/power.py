"""The smallest difference that a data set can show: told before anything is trained, and measured in the verdict."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy.special import ndtri, stdtrit

from pipeline.core.patients import patient_units
from pipeline.measures.resampling import Estimate

POWER = 0.8
MOST_ALIKE, LEAST_ALIKE = 0.97, 0.7
"""How the errors of two arms' means on the same patients correlate, at best and at worst: the middle half of the
primary rows of benchmarks/results/hunt.csv lies between 0.79 and 0.97, the scatter of the fits counted."""
_ASSUMED_AUROC = 0.85
_ASSUMED_RATE = 0.8


def smallest_differences(endpoint: str, alpha: float, n_pos_patients: int, n_neg_patients: int) -> tuple[float, float]:
    """Smallest true gain in the endpoint that the interval would exclude 0 for in 80 % of runs, before a run.

    A normal approximation for two arms on the same patients, at an AUROC of 0.85 (variance after Hanley & McNeil,
    Radiology 143 (1982)) or a rate of 0.8. How alike the arms err is not known before the run, and decides most: the
    first difference is for a correlation of 0.97, the second one for 0.7.

    Args:
        n_pos_patients, n_neg_patients: test patients of the disease side and of the other, over all folds.

    Returns:
        Differences of the endpoint (0.02 = 2 points); infinite where a side has no patient.
    """
    if min(n_pos_patients, n_neg_patients) < 1:
        return float("inf"), float("inf")
    if endpoint == "auroc":
        variance = hanley_mcneil_variance(_ASSUMED_AUROC, n_pos_patients, n_neg_patients)
    else:
        among = n_pos_patients if endpoint == "sensitivity" else n_neg_patients
        variance = _ASSUMED_RATE * (1 - _ASSUMED_RATE) / among
    quantiles = float(ndtri(1 - alpha / 2) + ndtri(POWER))
    best, worst = (quantiles * (2 * variance * (1 - alike)) ** 0.5 for alike in (MOST_ALIKE, LEAST_ALIKE))
    return best, worst


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


def hanley_mcneil_variance(auroc: float, n_pos: int, n_neg: int) -> float:
    """Variance of an AUROC (Hanley & McNeil 1982, equation 1, with the exponential model's Q1 and Q2)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (n_pos - 1) * (q1 - auroc**2) + (n_neg - 1) * (q2 - auroc**2)
    return spread / (n_pos * n_neg)
