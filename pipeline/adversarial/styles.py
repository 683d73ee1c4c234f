"""What a style-based generator trains with: mixed styles, and the path length that it is held to."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.adversarial.turns import NoiseTurn

_PATH_DECAY = 0.99


class StyleTurn(NoiseTurn):
    """A turn whose fakes have the styles of one z in their first layers and, for some, of another z in the others.

    `mixing` is the share of images that have two.
    """

    mixing = 0.9

    @cached_property
    def styles(self) -> Tensor:
        """Style w of each layer, [B, num_styles, latent_dim], float32."""
        generator: Any = self.table.nets["generator"]
        draws, batch = self.table.draws, len(self.z)
        crossover = 1 + draws.randint(generator.num_styles - 1, (batch,))
        is_mixed = draws.rand((batch,)) < self.mixing
        with torch.set_grad_enabled("generator" in self.trains):
            own = generator.map(self.z, self.condition)
            other = generator.map(draws.randn(self.z.shape), self.condition)
            return mixed(own, other, torch.where(is_mixed, crossover, generator.num_styles), generator.num_styles)

    @cached_property
    def fake(self) -> Tensor:
        generator: Any = self.table.nets["generator"]
        styles = self.styles  # made outside autocast: the path length differentiates by them
        with torch.set_grad_enabled("generator" in self.trains), self.table.autocast:
            images: Tensor = generator.synthesise(styles)
        return images.float()


def style_turn(mixing: float) -> type[StyleTurn]:
    """The turn that mixes the styles of a share `mixing` of the images."""
    return type("MixingTurn", (StyleTurn,), {"mixing": mixing})


def mixed(own: Tensor, other: Tensor, crossover: Tensor, num_styles: int) -> Tensor:
    """Styles [B, num_styles, size]: `own` [B, size] in layers below the image's `crossover` [B], else `other`."""
    below = torch.arange(num_styles, device=own.device) < crossover[:, None]
    return torch.where(below[..., None], own[:, None], other[:, None])


class PathLength(nn.Module):
    """The running mean of path lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))


def path_length(turn: StyleTurn) -> Tensor:
    """mean (|Jᵀ y| - a)², J the image's derivative by its styles, y normal noise, a the running mean of |Jᵀ y|.

    Karras et al. 2020, section 3.2, on the first half of the batch, in float32. The mean is that of
    `turn.table.states["path_length"]`.
    """
    generator: Any = turn.table.nets["generator"]
    styles = turn.styles[: max(1, len(turn.styles) // 2)]
    images = generator.synthesise(styles)
    noise = turn.table.draws.randn(images.shape) / math.sqrt(math.prod(images.shape[2:]))
    (slopes,) = torch.autograd.grad((images * noise).sum(), styles, create_graph=True)
    lengths = slopes.square().sum(dim=2).mean(dim=1).sqrt()
    mean = turn.table.states["path_length"].get_buffer("mean")
    mean.lerp_(lengths.detach().mean(), 1 - _PATH_DECAY)
    return (lengths - mean).square().mean()
