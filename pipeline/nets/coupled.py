"""Nets of two domains: what parts a batch by domain, and the coupled generator and discriminator (CoGAN)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.nets.conditions import Condition, ConditionCode, Judgement, recompute
from pipeline.nets.discriminators import Projection
from pipeline.nets.generators import ConditionalBatchNorm, centre_crop
from pipeline.nets.sizes import doublings, first_grid

_SLOPE = 0.1
_OWN_BLOCKS = 2


class DomainOf(nn.Module):
    """label [B] -> bool [B]: whether the class belongs to domain b."""

    positive: Tensor

    def __init__(self, positive: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("positive", torch.tensor(list(positive), dtype=torch.int64), persistent=False)

    def forward(self, label: Tensor) -> Tensor:
        return torch.isin(label, self.positive)


def by_domain(in_b: Tensor, of_a: Callable[[Tensor], Tensor], of_b: Callable[[Tensor], Tensor]) -> Tensor:
    """One result a row: `of_a(rows)` for the rows not in domain b, `of_b(rows)` for those in it, in the rows' order."""
    parts = [torch.nonzero(~in_b)[:, 0], torch.nonzero(in_b)[:, 0]]
    results = [make(rows) for make, rows in zip((of_a, of_b), parts, strict=True) if len(rows)]
    return torch.cat(results)[torch.cat(parts).argsort()]


def rows_of(condition: Condition, rows: Tensor) -> Condition:
    return Condition(**{name: None if part is None else part[rows] for name, part in vars(condition).items()})


class CoupledGenerator(nn.Module):
    """Two generators with tied first layers: one z makes a pair of images, one in each domain.

    Liu & Tuzel, "Coupled Generative Adversarial Networks", NeurIPS 2016. The tied trunk sees z alone; each domain's
    head is the last two doublings, and its norms see z, class and attributes. So what a pair shares is drawn from z,
    and what its images are asked for is drawn by the heads.

    Args:
        spatial_size: *spatial of the images.
        positive: class numbers of domain b.
        width: channels before the last layer; they halve with each doubling of the grid.
    """

    def __init__(
        self,
        *,
        spatial_size: Sequence[int],
        channels: int,
        num_classes: int,
        positive: Sequence[int],
        latent_dim: int,
        embedding_dim: int,
        width: int,
        num_attributes: int = 0,
    ) -> None:
        super().__init__()
        dims, levels = len(spatial_size), doublings(spatial_size)
        own = min(_OWN_BLOCKS, levels)
        self.latent_dim, self.spatial_size, self.grid = latent_dim, tuple(spatial_size), first_grid(spatial_size)
        self.checkpointing = False
        self.domain_of = DomainOf(positive)
        self.code = ConditionCode(num_classes, embedding_dim, num_attributes)
        widths = [width * 2 ** (levels - 1 - level) for level in range(levels)]
        steps = list(zip(widths, [*widths[1:], channels], strict=True))
        self.start = nn.Linear(latent_dim, widths[0] * math.prod(self.grid))
        self.trunk = nn.ModuleList([DoublingBlock(dims, *step, latent_dim) for step in steps[:-own]])
        code_dim = latent_dim + self.code.size
        self.head_a, self.head_b = (
            nn.ModuleList([DoublingBlock(dims, *step, code_dim) for step in steps[-own:]]) for _ in range(2)
        )

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        """Images [B, C, *spatial], each in the domain of its class."""
        features = self._tied(z)

        def head(blocks: nn.ModuleList) -> Callable[[Tensor], Tensor]:
            return lambda rows: self._finished(blocks, features[rows], z[rows], rows_of(condition, rows))

        return by_domain(self.domain_of(condition.required_label()), head(self.head_a), head(self.head_b))

    def pair(self, z: Tensor, condition_a: Condition, condition_b: Condition) -> tuple[Tensor, Tensor]:
        """An image of domain a and one of domain b from each z, each [B, C, *spatial]."""
        features = self._tied(z)
        return (
            self._finished(self.head_a, features, z, condition_a),
            self._finished(self.head_b, features, z, condition_b),
        )

    def _tied(self, z: Tensor) -> Tensor:
        features: Tensor = self.start(z).view(len(z), -1, *self.grid)
        for block in self.trunk:
            features = recompute(self.checkpointing, block, features, z)
        return features

    def _finished(self, head: nn.ModuleList, features: Tensor, z: Tensor, condition: Condition) -> Tensor:
        code = torch.cat([z, self.code(condition)], dim=1)
        for block in head:
            features = recompute(self.checkpointing, block, features, code)
        return torch.tanh(centre_crop(features, self.spatial_size))


class DoublingBlock(nn.Module):
    """Conditional batch norm, ReLU, nearest doubling and a 3 x 3 convolution."""

    def __init__(self, dims: int, before: int, after: int, code_dim: int) -> None:
        super().__init__()
        self.norm = ConditionalBatchNorm(dims, before, code_dim)
        self.conv = Conv[Conv.CONV, dims](before, after, 3, padding=1)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        doubled = interpolate(torch.relu(self.norm(features, code)), scale_factor=2.0, mode="nearest")
        return self.conv(doubled)


class CoupledDiscriminator(nn.Module):
    """Two discriminators with tied last layers: a first layer a domain, then one spectrally normalised trunk.

    Liu & Tuzel 2016; spectral norm and class projection as in `ProjectionDiscriminator`.

    Args:
        spatial_size: *spatial of the images.
        positive: class numbers of domain b.
        width: channels of the first layer; they double with each halving of the grid.
    """

    def __init__(
        self,
        *,
        spatial_size: Sequence[int],
        channels: int,
        num_classes: int,
        positive: Sequence[int],
        width: int,
        num_attributes: int = 0,
    ) -> None:
        super().__init__()
        dims, levels = len(spatial_size), doublings(spatial_size)
        conv = Conv[Conv.CONV, dims]
        self.checkpointing = False
        self.domain_of = DomainOf(positive)
        self.first_a, self.first_b = (spectral_norm(conv(channels, width, 4, stride=2, padding=1)) for _ in range(2))
        widths = [width * 2**level for level in range(levels)]
        halving = [conv(before, 2 * before, 4, stride=2, padding=1) for before in widths[:-1]]
        tied = [*halving, conv(widths[-1], widths[-1], 3, padding=1)]
        self.tied = nn.ModuleList([spectral_norm(layer) for layer in tied])
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.projection = Projection(widths[-1], num_classes, num_attributes)

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        in_b = self.domain_of(condition.required_label()).view(-1, *[1] * (images.ndim - 1))
        features = leaky_relu(torch.where(in_b, self.first_b(images), self.first_a(images)), _SLOPE)
        for layer in self.tied:
            features = recompute(self.checkpointing, _activated, layer, features)
        pooled = features.flatten(2).sum(dim=2)
        return Judgement(logits=self.score(pooled).squeeze(1) + self.projection(pooled, condition))


def _activated(layer: nn.Module, features: Tensor) -> Tensor:
    return leaky_relu(layer(features), _SLOPE)
