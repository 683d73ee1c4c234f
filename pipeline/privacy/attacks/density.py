"""How densely do synthetic images lie around an image? A kernel estimate in their principal components."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import logsumexp

from pipeline.measures.coverage import pairwise_distances
from pipeline.privacy.attack import AttackFacts, Candidates, Images, Target
from pipeline.privacy.registered import averaged_down

_COMPONENTS = 40


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """Log density of synthetic images at each candidate, up to a constant, [N].

    The kernel is Gaussian; its width is the median distance of candidates to their nearest synthetic image (the
    paper's median heuristic).
    """
    synthetic, asked = _cells(target.synthetic), _cells(candidates.images)
    middle = synthetic.mean(axis=0)
    axes = np.linalg.svd(synthetic - middle, full_matrices=False)[2][:_COMPONENTS]
    distances = pairwise_distances((asked - middle) @ axes.T, (synthetic - middle) @ axes.T)
    width = float(np.median(distances.min(axis=1))) or 1.0
    return np.asarray(logsumexp(-((distances / width) ** 2) / 2, axis=1))


def _cells(images: Images) -> np.ndarray:
    return torch.cat([averaged_down(block).flatten(1) for block in images]).double().numpy()


ATTACK = AttackFacts(
    "Hilprecht et al., Monte Carlo and Reconstruction Membership Inference Attacks against Generative Models, PoPETs "
    "2019", scores, note=f"A Gaussian kernel in {_COMPONENTS} principal components, in place of counts within a ball.",
)  # fmt: skip
