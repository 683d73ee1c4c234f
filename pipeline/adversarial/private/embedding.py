"""DP-MERF: a generator whose images have the patients' mean embedding, which was made noisy once.

Harder, Adamczewski & Park, "DP-MERF: Differentially Private Mean Embeddings with Random Features for Practical
Privacy-Preserving Data Generation", AISTATS 2021.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.adversarial.turns import NoiseTurn
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import Condition
from pipeline.nets.fourier import NoisyEmbedding

if TYPE_CHECKING:
    from pipeline.adversarial.private.budget import Budget

EMBEDDING = "embedding"
_BLOCK = 256


class EmbeddingTurn(NoiseTurn):
    """Fakes of all classes alike; no real image is looked at."""

    @cached_property
    def condition(self) -> Condition:
        return Condition(label=self.batch.label)


def embedding_distance(turn: EmbeddingTurn) -> Tensor:
    """Mean over classes of the squared distance between the fakes' mean embedding and the patients' noisy one.

    It is the squared maximum mean discrepancy, up to a constant: embeddings have length 1, so that the diagonal of the
    fakes' kernel does not depend on them.
    """
    net = turn.context.nets[EMBEDDING]
    assert isinstance(net, NoisyEmbedding)
    label = turn.condition.required_label()
    found = torch.zeros_like(net.sums).index_add(0, label, net(turn.fake))
    number = torch.bincount(label, minlength=len(net.sums))
    there = number > 0
    distances = (found[there] / number[there, None] - net.means[there]).square().sum(dim=1)
    return distances.mean()


def fill(net: nn.Module, images: StoredImages, budget: Budget | None, random: torch.Generator) -> None:
    """Put the labelled images into an empty embedding, and noise on it; None = no noise.

    Each patient adds the mean of his images' embeddings, each under its class.
    """
    assert isinstance(net, NoisyEmbedding)
    label = images.label.cpu()
    rows = torch.nonzero(label >= 0).squeeze(1)
    patient = torch.arange(len(label)) if images.patient is None else images.patient
    _, place, count = torch.unique(patient[rows], return_inverse=True, return_counts=True)
    share = (1.0 / count)[place].to(images.device)
    for own, part in zip(rows.split(_BLOCK), share.split(_BLOCK), strict=True):
        batch = images.batch(own)
        net.add(batch.images, batch.label, part)
    if budget is not None:
        budget.look()
        net.disturb(budget.noise, random)
