"""Whose image does each synthetic one come from? It is asked of the synthetic images, and not of the candidates."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.measures.coverage import pairwise_distances
from pipeline.privacy.attack import AttackFacts, Candidates, Images, Target
from pipeline.privacy.registered import averaged_down


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """By how much more than anybody else's image some synthetic image is like the candidate, [N].

    Of each synthetic image the squared pixel distance to the candidate is taken from that to the nearest image of
    another patient; the largest of these counts. Whatever a synthetic image has that no candidate has, noise above all,
    is in both distances and falls out: copies are found that are far from everybody.
    """
    asked, shown = (_cells(one) for one in (candidates.images, target.synthetic))
    best = np.full(len(asked), -np.inf)
    for part in np.array_split(shown, max(1, len(shown) * len(asked) // 2**22)):
        squared = pairwise_distances(asked, part) ** 2
        best = np.maximum(best, (_nearest_of_others(squared, candidates.patient) - squared).max(axis=1))
    return best


def _nearest_of_others(squared: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """The least distance [N, S] of each synthetic image to an image of another patient than each candidate's own."""
    first = squared.min(axis=0)
    own = patient[squared.argmin(axis=0)]
    second = np.where(patient[:, None] == own[None], np.inf, squared).min(axis=0)
    return np.where(patient[:, None] == own[None], second[None], first[None])


def _cells(images: Images) -> np.ndarray:
    return torch.cat([averaged_down(block).flatten(1) for block in images]).double().numpy()


ATTACK = AttackFacts(
    "GAN-Leaks (Chen et al., ACM CCS 2020) turned round: the candidates compete for each synthetic image", scores,
    note="Plain pixels: it sees through noise, and takes out no shift or contrast. Large images at 32 pixels a side.",
)  # fmt: skip
