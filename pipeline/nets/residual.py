"""Residual generator and discriminator with self-attention and spectral norm in both, in 2D or 3D."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.nets.attention import SelfAttention, attended_grid
from pipeline.nets.conditions import Condition, Judgement, recompute
from pipeline.nets.discriminators import Projection
from pipeline.nets.generators import ConditionalBatchNorm, NoiseGenerator, doubled
from pipeline.nets.layers import AVERAGE_POOL, CONV
from pipeline.nets.sizes import ImageShape, doubling_widths


class ResidualGenerator(NoiseGenerator):
    """z -> first grid -> residual doublings, each norm fed by a code of class, attributes and z -> image.

    With `skip_z` z is cut into one piece for the first grid and one for each doubling, the first pieces a number
    longer where it does not divide; a block's norms see the condition's code, shared by all blocks, beside the
    block's piece (Brock et al., ICLR 2019). Without it all of z makes the first grid and the norms see the condition
    alone (Zhang et al., ICML 2019). Self-attention acts once, on the largest grid that `attention_side` lets in.

    Args:
        width: channels before the last layer; they double with each halving of the grid.
    """

    def __init__(
        self,
        shape: ImageShape,
        latent_dim: int,
        embedding_dim: int,
        width: int,
        *,
        attention_side: int,
        skip_z: bool = False,
    ) -> None:
        super().__init__(shape, latent_dim, embedding_dim)
        dims, levels = shape.spatial_dims, shape.levels
        cut = [len(piece) for piece in torch.arange(latent_dim).tensor_split(levels + 1)]
        self.pieces = cut if skip_z else [latent_dim] + [0] * levels
        widths = doubling_widths(width, levels + 1)[::-1]
        self.start = spectral_norm(nn.Linear(self.pieces[0], widths[0] * math.prod(self.grid)))
        self.blocks = nn.ModuleList(
            _UpBlock(dims, before, after, self.code.size + piece)
            for (before, after), piece in zip(pairwise(widths), self.pieces[1:], strict=True)
        )
        grids = [[side * 2**level for side in self.grid] for level in range(1, levels + 1)]
        self.attended = attended_grid(grids, attention_side)
        self.attention = None if self.attended is None else SelfAttention(dims, widths[self.attended + 1])
        self.norm = ConditionalBatchNorm(dims, width, self.code.size)
        self.image = spectral_norm(CONV[dims](width, shape.channels, 3, padding=1))

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        code = self.code(condition)
        first, *others = z.split(self.pieces, dim=1)
        features = self.start(first).view(len(z), -1, *self.grid)
        for number, (block, piece) in enumerate(zip(self.blocks, others, strict=True)):
            features = recompute(self.checkpointing, block, features, torch.cat([code, piece], dim=1))
            if self.attention is not None and number == self.attended:
                features = recompute(self.checkpointing, self.attention, features)
        images = self.image(torch.relu(self.norm(features, code)))
        return self.finished(images)


class TruncatingGenerator(ResidualGenerator):
    """A `ResidualGenerator` whose z can be drawn from a normal distribution without tails (Brock et al. 2019)."""

    def truncated(self, z: Tensor, condition: Condition, psi: float) -> Tensor:
        """Images of z moved into a normal distribution that ends at -2 psi and 2 psi.

        Brock et al. draw again what lies outside; here each number keeps its quantile, so that one z is one image.
        """
        images: Tensor = self(truncated_normal(z, 2 * psi), condition)
        return images


def truncated_normal(z: Tensor, threshold: float) -> Tensor:
    """Standard normal numbers as quantiles of the normal distribution cut to [-threshold, threshold]."""
    outside = 0.5 * math.erfc(threshold / math.sqrt(2))
    share = torch.special.ndtr(z.double())
    return torch.special.ndtri(outside + (1 - 2 * outside) * share).clamp(-threshold, threshold).to(z.dtype)


class ResidualDiscriminator(nn.Module):
    """Spectrally normalised residual halvings, self-attention, sum pooling and projection.

    Zhang et al., ICML 2019; Brock et al., ICLR 2019; Miyato & Koyama, ICLR 2018.

    Args:
        width: channels at full image size; they double with each halving of the grid.
    """

    def __init__(self, shape: ImageShape, width: int, *, attention_side: int) -> None:
        super().__init__()
        dims, levels = shape.spatial_dims, shape.levels
        widths = [shape.channels, *doubling_widths(width, levels)]
        blocks = [
            _DownBlock(dims, before, after, shrinks=True, first=number == 0)
            for number, (before, after) in enumerate(pairwise(widths))
        ]
        self.blocks = nn.ModuleList([*blocks, _DownBlock(dims, widths[-1], widths[-1], shrinks=False)])
        grids = [[side >> level for side in shape.spatial_size] for level in range(1, levels + 1)]
        self.attended = attended_grid(grids, attention_side)
        self.attention = None if self.attended is None else SelfAttention(dims, widths[self.attended + 1])
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.projection = Projection(widths[-1], shape)
        self.checkpointing = False

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        for number, block in enumerate(self.blocks):
            images = recompute(self.checkpointing, block, images)
            if self.attention is not None and number == self.attended:
                images = recompute(self.checkpointing, self.attention, images)
        pooled = torch.relu(images).flatten(2).sum(dim=2)
        return Judgement(logits=self.score(pooled).squeeze(1) + self.projection(pooled, condition))


def residual_width(width: int) -> int:
    """Channels that cost what the default family's `width` costs: residual nets have two layers a grid, not one."""
    return max(4, width * 5 // 16)


class _UpBlock(nn.Module):
    """norm, relu, doubling, conv, norm, relu, conv, beside doubling and a 1 x 1 conv."""

    def __init__(self, dims: int, before: int, after: int, code_dim: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ConditionalBatchNorm(dims, features, code_dim) for features in (before, after)])
        self.first, self.second = _conv(dims, before, after, 3), _conv(dims, after, after, 3)
        self.shortcut = _conv(dims, before, after, 1)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        inner = self.first(doubled(torch.relu(self.norms[0](features, code))))
        inner = self.second(torch.relu(self.norms[1](inner, code)))
        return inner + doubled(self.shortcut(features))


class _DownBlock(nn.Module):
    """relu, conv, relu, conv, halving, beside a 1 x 1 conv and halving; without the first relu on images."""

    def __init__(self, dims: int, before: int, after: int, *, shrinks: bool, first: bool = False) -> None:
        super().__init__()
        self.first, self.second = _conv(dims, before, after, 3), _conv(dims, after, after, 3)
        self.shortcut = _conv(dims, before, after, 1) if before != after or first else nn.Identity()
        self.halve = AVERAGE_POOL[dims](2) if shrinks else nn.Identity()
        self.sees_images = first

    def forward(self, features: Tensor) -> Tensor:
        inner = features if self.sees_images else torch.relu(features)
        inner = self.halve(self.second(torch.relu(self.first(inner))))
        return inner + self.shortcut(self.halve(features))


def _conv(dims: int, before: int, after: int, kernel: int) -> nn.Module:
    layer = CONV[dims](before, after, kernel, padding=kernel // 2)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return spectral_norm(layer)
