"""Terms of the players' losses, mean-reduced."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.adversarial.turns import NoiseTurn


def hinge_discriminator(turn: NoiseTurn) -> Tensor:
    """mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake)) (Lim & Ye 2017; Miyato et al. 2018)."""
    return torch.relu(1 - turn.real_logits).mean() + torch.relu(1 + turn.fake_logits).mean()


def hinge_generator(turn: NoiseTurn) -> Tensor:
    """-mean D(fake)."""
    return -turn.fake_logits.mean()
