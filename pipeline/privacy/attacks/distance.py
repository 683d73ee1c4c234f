"""How near is the nearest synthetic image, in pixels, once flips, small shifts and contrast are taken out?"""

from __future__ import annotations

import numpy as np

from pipeline.privacy.attack import AttackFacts, Candidates, Target
from pipeline.privacy.registered import registered_distances


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """Less the registered distance to the nearest synthetic image, [N]."""
    return -registered_distances(target.synthetic, candidates.images, target.device).min(axis=0).astype(np.float64)


ATTACK = AttackFacts(
    "Chen et al., GAN-Leaks, ACM CCS 2020, full black box; with registration over flips and small shifts", scores,
    note="Large images are seen at 32 pixels a side, volumes at 16.",
)  # fmt: skip
