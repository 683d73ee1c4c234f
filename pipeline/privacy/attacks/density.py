"""How densely, and how near, do synthetic images lie around an image? Counted within a ball, nearer ones for more."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.measures.coverage import pairwise_distances
from pipeline.privacy.attack import AttackFacts, Candidates, Images, Target
from pipeline.privacy.registered import averaged_down

_COMPONENTS, _REACHED, _NEAREST = 40, 0.9, 1e-3


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """The sum of log(radius / distance) over the synthetic images within a ball around each candidate, [N].

    Distances are those of the synthetic images' principal components. The ball holds a synthetic image for nine in ten
    candidates; distances below a thousandth of its radius count as that.
    """
    synthetic, asked = _cells(target.synthetic), _cells(candidates.images)
    middle = synthetic.mean(axis=0)
    axes = np.linalg.svd(synthetic - middle, full_matrices=False)[2][:_COMPONENTS]
    distances = pairwise_distances((asked - middle) @ axes.T, (synthetic - middle) @ axes.T)
    radius = float(np.quantile(distances.min(axis=1), _REACHED)) or 1.0
    return np.asarray(-np.log((distances / radius).clip(_NEAREST, 1.0)).sum(axis=1))


def _cells(images: Images) -> np.ndarray:
    return torch.cat([averaged_down(block).flatten(1) for block in images]).double().numpy()


ATTACK = AttackFacts(
    "Hilprecht et al., Monte Carlo and Reconstruction Membership Inference Attacks against Generative Models, PoPETs "
    "2019", scores, note=f"Monte Carlo with logarithms, in {_COMPONENTS} components; the ball is that of nine in ten.",
)  # fmt: skip
