"""Regularisers: terms that differentiate a net. They run in float32, outside autocast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.adversarial.turns import NoiseTurn
from pipeline.nets.conditions import Condition, Judgement

Judge = Callable[[Tensor, Condition], Judgement]


def r1_penalty(turn: NoiseTurn) -> Tensor:
    """mean ½ |∇D(real)|² on the images that the discriminator sees; weight it by γ (Mescheder et al., ICML 2018)."""
    return 0.5 * squared_gradients(turn.context.nets["discriminator"], turn.real_seen, turn.condition).mean()


def gradient_penalty(turn: NoiseTurn) -> Tensor:
    """mean (|∇D(x)| - 1)² at random points between real and fake; weight it by λ (Gulrajani et al., NeurIPS 2017)."""
    real, fake = turn.real_seen.detach(), turn.fake_seen.detach()
    share = turn.context.draws.rand((len(real), *[1] * (real.ndim - 1)))
    between = torch.lerp(real, fake, share)
    squared = squared_gradients(turn.context.nets["discriminator"], between, turn.condition)
    return ((squared + 1e-12).sqrt() - 1).square().mean()


def squared_gradients(judge: Judge, images: Tensor, condition: Condition) -> Tensor:
    """|∇ logit|² of each image [B], with a graph of its own."""
    images = images.detach().requires_grad_()
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        logits = judge(images, condition).logits
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.flatten(1).square().sum(dim=1)
