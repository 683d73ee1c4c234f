"""What a style-based generator trains with: mixed styles, and the path length that it is held to."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pipeline.adversarial.turns import Context, NoiseTurn
from pipeline.nets.conditions import Condition, Generator

_PATH_DECAY = 0.99


@runtime_checkable
class StyledGenerator(Generator, Protocol):
    """A generator in two parts: z and condition to styles, styles to images."""

    num_styles: int

    def map(self, z: Tensor, condition: Condition) -> Tensor:
        """Style w [B, size] of z [B, latent_dim]."""
        ...

    def synthesise(self, w: Tensor) -> Tensor:
        """Images of one style a layer, [B, num_styles, size]."""
        ...


def _styled(context: Context) -> StyledGenerator:
    generator = context.generator
    assert isinstance(generator, StyledGenerator), "this family's generator needs map, synthesise and num_styles"
    return generator


class StyleTurn(NoiseTurn):
    """A turn whose fakes have the styles of one z in their first layers and, for some, of another z in the others.

    `mixing` is the share of images that have two.
    """

    mixing = 0.9

    @cached_property
    def styles(self) -> Tensor:
        """Style w of each layer, [B, num_styles, latent_dim], float32."""
        generator = _styled(self.context)
        draws, batch = self.context.draws, len(self.z)
        crossover = 1 + draws.randint(generator.num_styles - 1, (batch,))
        is_mixed = draws.rand((batch,)) < self.mixing
        with torch.set_grad_enabled("generator" in self.trains):
            own = generator.map(self.z, self.condition)
            other = generator.map(draws.randn(self.z.shape), self.condition)
            return mixed(own, other, torch.where(is_mixed, crossover, generator.num_styles), generator.num_styles)

    @cached_property
    def fake(self) -> Tensor:
        generator = _styled(self.context)
        styles = self.styles  # made outside autocast: the path length differentiates by them
        with torch.set_grad_enabled("generator" in self.trains), self.context.autocast:
            return generator.synthesise(styles).float()


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
    `turn.context.states["path_length"]`.
    """
    generator = _styled(turn.context)
    styles = turn.styles[: max(1, len(turn.styles) // 2)]
    images = generator.synthesise(styles)
    noise = turn.context.draws.randn(images.shape) / math.sqrt(math.prod(images.shape[2:]))
    (slopes,) = torch.autograd.grad((images * noise).sum(), styles, create_graph=True)
    lengths = slopes.square().sum(dim=2).mean(dim=1).sqrt()
    mean = turn.context.states["path_length"].get_buffer("mean")
    mean.lerp_(lengths.detach().mean(), 1 - _PATH_DECAY)
    return (lengths - mean).square().mean()
