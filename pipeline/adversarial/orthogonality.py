"""A regulariser that keeps a generator smooth enough for truncated noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.adversarial.turns import NoiseTurn


def orthogonality(turn: NoiseTurn) -> Tensor:
    """Sum over the generator's weights of ‖W Wᵀ ⊙ (1 - I)‖², W with a row for every filter; weight it by β.

    Filters shall point in different directions, their lengths are free (Brock et al., "Large Scale GAN Training", ICLR
    2019, section 3.1). Embeddings are left out, as in the paper's code.
    """
    generator = turn.context.nets["generator"]
    tables = {
        id(weight)
        for module in generator.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters()
    }
    weights = [weight for weight in generator.parameters() if weight.ndim > 1 and id(weight) not in tables]
    return torch.stack([off_diagonal(weight.float().flatten(1)) for weight in weights]).sum()


def off_diagonal(rows: Tensor) -> Tensor:
    """Sum of the squared inner products of different rows [N, M]: 0 where they are orthogonal."""
    products = rows @ rows.T
    return (products - torch.diag(products.diagonal())).square().sum()
