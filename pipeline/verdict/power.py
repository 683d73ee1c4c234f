"""The smallest difference that a data set can show, told before anything is trained."""

from __future__ import annotations

from scipy import stats

from pipeline.config.experiment import Experiment

_ASSUMED_AUROC = 0.85
_ASSUMED_RATE = 0.8
_ASSUMED_CORRELATION = 0.7
_POWER = 0.8


def smallest_difference(experiment: Experiment, n_pos_patients: int, n_neg_patients: int) -> float:
    """Smallest true gain in the endpoint that the interval would exclude 0 for in 80 % of runs.

    A normal approximation for two arms on the same patients, whose errors correlate at 0.7, at an AUROC of 0.85
    (variance after Hanley & McNeil, Radiology 143 (1982)) or a rate of 0.8. Scatter over seeds comes on top.

    Args:
        n_pos_patients, n_neg_patients: test patients of the disease side and of the other, over all folds.

    Returns:
        A difference of the endpoint (0.02 = 2 points); infinite where a side has no patient.
    """
    if min(n_pos_patients, n_neg_patients) < 1:
        return float("inf")
    endpoint = experiment.verdict.endpoint
    if endpoint == "auroc":
        variance = hanley_mcneil_variance(_ASSUMED_AUROC, n_pos_patients, n_neg_patients)
    else:
        among = n_pos_patients if endpoint == "sensitivity" else n_neg_patients
        variance = _ASSUMED_RATE * (1 - _ASSUMED_RATE) / among
    error = (2 * variance * (1 - _ASSUMED_CORRELATION)) ** 0.5
    return float((stats.norm.ppf(1 - experiment.verdict.alpha / 2) + stats.norm.ppf(_POWER)) * error)


def hanley_mcneil_variance(auroc: float, n_pos: int, n_neg: int) -> float:
    """Variance of an AUROC (Hanley & McNeil 1982, equation 1, with the exponential model's Q1 and Q2)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (n_pos - 1) * (q1 - auroc**2) + (n_neg - 1) * (q2 - auroc**2)
    return spread / (n_pos * n_neg)
