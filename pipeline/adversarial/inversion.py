"""How far an image is from what a generator makes of a code: f-AnoGAN's residual."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.nets.conditions import Condition, Generator

_KAPPA = 1.0
"""Weight of the residual in the discriminator's features, as in the paper."""


def residuals(
    generator: Generator,
    layers: Callable[[Tensor, Condition], Sequence[Tensor]],
    images: Tensor,
    code: Tensor,
    conditions: Sequence[Condition],
) -> tuple[Tensor, Tensor]:
    """The mean squared residual in pixels and in the discriminator's last features, under the condition that fits best.

    Schlegl et al., "f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial networks", MedIA 2019.

    Args:
        layers: a discriminator's layers, (images, condition) -> [B, D, *grid] or [B, D] each.
        images: [B, C, *spatial] in [-1, 1].
        code: [B, latent_dim].
        conditions: that an image may have been made under; no image's own label is asked for.

    Returns:
        [B], and the squared residual in pixels alone, [B, *spatial].
    """
    scores, maps = [], []
    for condition in conditions:
        made = generator(code, condition).float()
        squares = (made - images).square().mean(dim=1)
        features = [layers(each, condition)[-1].float().flatten(1) for each in (images, made)]
        apart = (features[0] - features[1]).square().mean(dim=1)
        scores.append(squares.flatten(1).mean(dim=1) + _KAPPA * apart)
        maps.append(squares)
    nearest = torch.stack(scores).argmin(dim=0)
    each = torch.arange(len(images), device=nearest.device)
    return torch.stack(scores)[nearest, each], torch.stack(maps)[nearest, each]
