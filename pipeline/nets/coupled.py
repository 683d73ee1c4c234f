"""Nets of two domains: what parts a batch by domain, and the coupled generator and discriminator (CoGAN)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.nets.conditions import Condition, Judgement, recompute
from pipeline.nets.discriminators import Projection, activated
from pipeline.nets.generators import ConditionalBatchNorm, NoiseGenerator, doubled
from pipeline.nets.layers import CONV
from pipeline.nets.sizes import ImageShape, doubling_widths

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


class CoupledGenerator(NoiseGenerator):
    """Two generators with tied first layers: one z makes a pair of images, one in each domain.

    Liu & Tuzel, "Coupled Generative Adversarial Networks", NeurIPS 2016. The tied trunk sees z alone; each domain's
    head is the last two doublings, and its norms see z, class and attributes. So what a pair shares is drawn from z,
    and what its images are asked for is drawn by the heads.

    Args:
        width: channels before the last layer; they halve with each doubling of the grid.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int) -> None:
        super().__init__(shape, latent_dim, embedding_dim)
        dims, own = shape.spatial_dims, min(_OWN_BLOCKS, shape.levels)
        self.domain_of = DomainOf(shape.positive)
        widths = doubling_widths(width, shape.levels)[::-1]
        steps = list(zip(widths, [*widths[1:], shape.channels], strict=True))
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
        return self.finished(features)


class DoublingBlock(nn.Module):
    """Conditional batch norm, ReLU, nearest doubling and a 3 x 3 convolution."""

    def __init__(self, dims: int, before: int, after: int, code_dim: int) -> None:
        super().__init__()
        self.norm = ConditionalBatchNorm(dims, before, code_dim)
        self.conv = CONV[dims](before, after, 3, padding=1)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        return self.conv(doubled(torch.relu(self.norm(features, code))))


class CoupledDiscriminator(nn.Module):
    """Two discriminators with tied last layers: a first layer a domain, then one spectrally normalised trunk.

    Liu & Tuzel 2016; spectral norm and class projection as in `ProjectionDiscriminator`.

    Args:
        width: channels of the first layer; they double with each halving of the grid.
    """

    def __init__(self, shape: ImageShape, width: int) -> None:
        super().__init__()
        conv = CONV[shape.spatial_dims]
        self.checkpointing = False
        self.domain_of = DomainOf(shape.positive)
        self.first_a, self.first_b = (
            spectral_norm(conv(shape.channels, width, 4, stride=2, padding=1)) for _ in range(2)
        )
        widths = doubling_widths(width, shape.levels)
        halving = [conv(before, 2 * before, 4, stride=2, padding=1) for before in widths[:-1]]
        tied = [*halving, conv(widths[-1], widths[-1], 3, padding=1)]
        self.tied = nn.ModuleList([spectral_norm(layer) for layer in tied])
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.projection = Projection(widths[-1], shape)

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        in_b = self.domain_of(condition.required_label()).view(-1, *[1] * (images.ndim - 1))
        features = leaky_relu(torch.where(in_b, self.first_b(images), self.first_a(images)), _SLOPE)
        for layer in self.tied:
            features = recompute(self.checkpointing, activated, layer, features, _SLOPE)
        pooled = features.flatten(2).sum(dim=2)
        return Judgement(logits=self.score(pooled).squeeze(1) + self.projection(pooled, condition))
