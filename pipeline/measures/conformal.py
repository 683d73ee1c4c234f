"""p-values without a model: how many normal patients look so unlike the others."""

from __future__ import annotations

import numpy as np


def conformal_p_values(score: np.ndarray, calibration: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Split-conformal p-values of scores [n], large = unlike normal, against those of normal patients kept for this.

    p = (1 + the number of calibration patients with a score as large) / (1 + the number of calibration patients). For
    an image of a normal patient, p <= a has probability a at most, however the scores are distributed (Vovk,
    Gammerman & Shafer 2005; Bates et al., Ann. Statist. 2023). A patient with m images counts 1/m for each, so that it
    stands for one image drawn at random among its own (Dunn, Wasserman & Ramdas, JASA 2023).

    Args:
        calibration: [m] scores of images that nothing was fitted to or chosen by.
        patients: [m] patient of each.

    Returns:
        [n], from 1 / (patients + 1) to 1; 1 where there is no calibration patient.
    """
    _, index, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.argsort(calibration, kind="stable")
    weights = (1 / counts)[index][order]
    above = np.concatenate([np.cumsum(weights[::-1])[::-1], [0.0]])
    place = np.searchsorted(calibration[order], score, side="left")
    return np.minimum(1.0, (1 + above[place]) / (1 + len(counts)))


def alarm_threshold(calibration: np.ndarray, patients: np.ndarray, rate: float) -> float:
    """The least score at which `conformal_p_values` are at most `rate`; infinite where there are too few patients."""
    levels = np.unique(calibration)
    beyond = np.nextafter(levels, np.inf)
    called = conformal_p_values(beyond, calibration, patients) <= rate + 1e-12
    return float(beyond[called][0]) if called.any() else float("inf")
