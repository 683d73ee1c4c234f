"""Random Fourier features of images: cosines and sines of random projections, whose inner products are kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

COUNT_WEIGHT = 0.3
"""Of the number of images a class beside their features, in a patient's part of the sum."""
SENSITIVITY = (1 + COUNT_WEIGHT**2) ** 0.5
"""How far one patient can move sums and weighted counts together, whatever his images are."""


class NoisyEmbedding(nn.Module):
    """Sums of random Fourier features over patients, class by class: all that a generator learns from in DP-MERF.

    Rahimi & Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007: features have length 1, and their
    inner products are Gaussian kernels. Harder et al., "DP-MERF", AISTATS 2021: noise is put on their sum, once.

    Args:
        image: [C, *spatial].
        features: numbers of an image's embedding.
        bandwidths: mean squared differences of two images' values at which a kernel has fallen to exp(-1/2); each gets
            the same share of the features, so that the kernels are averaged.
    """

    frequencies: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, image: Sequence[int], num_classes: int, features: int, bandwidths: Sequence[float]) -> None:
        super().__init__()
        values, pairs = math.prod(image), features // 2
        scales = torch.tensor(bandwidths).repeat(-(-pairs // len(bandwidths)))[:pairs]
        drawn = torch.randn(pairs, values) / (scales[:, None] * values).sqrt()
        self.register_buffer("frequencies", drawn, persistent=False)
        self.register_buffer("sums", torch.zeros(num_classes, 2 * pairs))
        self.register_buffer("counts", torch.zeros(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [B, features] of length 1 of images [B, C, *spatial]."""
        angles = images.flatten(1) @ self.frequencies.T
        return torch.cat([angles.cos(), angles.sin()], dim=1) / len(self.frequencies) ** 0.5

    @torch.no_grad()
    def add(self, images: Tensor, label: Tensor, share: Tensor) -> None:
        """Add images [B, C, *spatial] of classes [B], each by its share [B]; the shares of a patient add up to 1."""
        self.sums.index_add_(0, label, self(images) * share[:, None])
        self.counts.index_add_(0, label, share)

    @torch.no_grad()
    def disturb(self, noise: float, random: torch.Generator) -> None:
        """Put noise of `noise` times the sensitivity on all numbers: on the counts, as they are weighted in it."""
        for numbers, weight in ((self.sums, 1.0), (self.counts, COUNT_WEIGHT)):
            drawn = torch.randn(numbers.shape, generator=random, device=numbers.device)
            numbers.add_(drawn, alpha=noise * SENSITIVITY / weight)

    @property
    def means(self) -> Tensor:
        """The mean embedding of every class, [num_classes, features], as far as noise lets it be known."""
        return self.sums / self.counts.clamp(min=1.0)[:, None]
