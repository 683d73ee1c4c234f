"""Is the nearest synthetic image nearer than the nearest image of another patient? Ordinary images are near to all."""

from __future__ import annotations

import numpy as np

from pipeline.privacy.attack import AttackFacts, Candidates, Target
from pipeline.privacy.registered import registered_distances


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """The distance to the nearest real image of another patient, less that to the nearest synthetic image, [N].

    The other patients are members and non-members together, so that neither side is favoured.
    """
    synthetic = registered_distances(target.synthetic, candidates.images, target.device).min(axis=0)
    others = registered_distances(candidates.images, candidates.images, target.device)
    others[candidates.patient[:, None] == candidates.patient[None]] = np.inf
    return (others.min(axis=0) - synthetic).astype(np.float64)


ATTACK = AttackFacts(
    "Chen et al., GAN-Leaks, ACM CCS 2020, attack calibration", scores,
    note="Calibrated by images of other patients and not by a second generator.",
)  # fmt: skip
