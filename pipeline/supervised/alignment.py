"""Features that are alike across sites: what is added to the loss of the classes. No label is read here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor, nn

from pipeline.config.arm_facts import Align

HIDDEN = 100
"""Of the layer between features and domains: as in the paper's networks for small images."""


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What is given to the layer while the context lasts, call by call."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()


def make_alignment(kind: Align, features: int, domains: int) -> nn.Module:
    """(features [B, D], domain [B], progress) -> a scalar; see the classes."""
    return Coral() if kind == "coral" else Dann(features, domains)


class Coral(nn.Module):
    """Deep CORAL: Sun & Saenko, ECCV workshop 2016, equation 1, weight 1.

    The paper takes the last layer's outputs and two domains; here it is the last layer's inputs, and the mean over all
    pairs of domains that have two images in the batch.
    """

    def forward(self, features: Tensor, domain: Tensor, progress: float) -> Tensor:
        del progress
        numbers = [number for number in domain.unique() if int((domain == number).sum()) > 1]
        matrices = [covariance(features[domain == number]) for number in numbers]
        distances = [coral_distance(one, two) for one, two in combinations(matrices, 2)]
        return torch.stack(distances).mean() if distances else features.new_zeros(())


def covariance(features: Tensor) -> Tensor:
    """[D, D] of features [B, D], over B - 1: equations 2 and 3."""
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)


def coral_distance(one: Tensor, two: Tensor) -> Tensor:
    """Squared Frobenius distance of covariances [D, D], over 4 D²."""
    return (one - two).square().sum() / (4 * len(one) ** 2)


class Dann(nn.Module):
    """Domain-adversarial training: Ganin et al., JMLR 2016. A layer that tells domains apart, on reversed gradients.

    The domains' cross-entropies count the same, however many images of each are in the batch.
    """

    def __init__(self, features: int, domains: int) -> None:
        super().__init__()
        self.tell = nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, domains))

    def forward(self, features: Tensor, domain: Tensor, progress: float) -> Tensor:
        """
        Args:
            features: [B, D]; their gradient comes back times minus `reversal(progress)`.
            domain: [B] numbers from 0 on.
            progress: of the training, from 0 to 1.
        """
        logits = self.tell(_reversed(features, reversal(progress)))
        counts = torch.bincount(domain, minlength=logits.shape[1]).clamp(min=1).to(logits.dtype)
        losses = nn.functional.cross_entropy(logits, domain, reduction="none")
        weights = 1 / counts[domain]
        return (weights * losses).sum() / weights.sum()


def reversal(progress: float) -> float:
    """λ_p = 2 / (1 + exp(-10 p)) - 1: none at first, so that domains are told apart before they are hidden."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


def _reversed(features: Tensor, strength: float) -> Tensor:
    """The features, whose gradient comes back times -strength."""
    return features.detach() * (1 + strength) - features * strength
