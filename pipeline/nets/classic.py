"""Convolutional nets of the first years: DCGAN's generator, and strided discriminators without spectral norm."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pipeline.nets.conditions import Condition, Judgement, recompute
from pipeline.nets.discriminators import Projection, activated
from pipeline.nets.generators import NoiseGenerator, Norm, norm_layer
from pipeline.nets.layers import BATCH_NORM, CONV, CONV_TRANSPOSE
from pipeline.nets.sizes import ImageShape, doubling_widths

NormKind = Literal["none", "batch", "layer"]
Conditioning = Literal["concat", "projection", "auxiliary"]
_SLOPE = 0.2


class TransposedGenerator(NoiseGenerator):
    """DCGAN's generator: transposed convolutions, batch norm, rectifiers, in 2D or 3D.

    Radford et al., "Unsupervised Representation Learning with DCGANs", ICLR 2016. Class and attributes enter beside z
    at the first grid. Channels halve with each doubling.

    Args:
        width: channels before the last layer.
    """

    def __init__(
        self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int, norm: Norm = "batch"
    ) -> None:
        super().__init__(shape, latent_dim, embedding_dim)
        dims, widths = shape.spatial_dims, doubling_widths(width, shape.levels)[::-1]
        self.start = nn.Linear(latent_dim + self.code.size, widths[0] * math.prod(self.grid), bias=False)
        self.norms = nn.ModuleList([norm_layer(norm, dims, features) for features in widths])
        conv = CONV_TRANSPOSE[dims]
        self.layers = nn.ModuleList(
            [conv(*step, 4, stride=2, padding=1) for step in zip(widths, [*widths[1:], shape.channels], strict=True)]
        )
        for layer in (self.start, *self.layers):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        code = torch.cat([z, self.code(condition)], dim=1)
        features = self.start(code).view(len(z), -1, *self.grid)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            features = recompute(self.checkpointing, _doubled, norm, layer, features)
        return self.finished(features)


def _doubled(norm: nn.Module, layer: nn.Module, features: Tensor) -> Tensor:
    return layer(torch.relu(norm(features)))


class StridedDiscriminator(nn.Module):
    """Strided convolutions and one linear layer over the last grid, without spectral norm, in 2D or 3D.

    Args:
        width: channels of the first layer; they double with each halving of the grid.
        norm: after every convolution but the first; "layer" is over channels and grid together, has no
            weights of its own that clipping could stifle, and keeps each image's judgement its own, as a gradient
            penalty demands.
        conditioning: how the class is learnt of. "concat": as planes beside the image (Mirza & Osindero 2014);
            "projection": by an inner product with the features summed over the grid (Miyato & Koyama 2018; its
            embedding is spectrally normalised); "auxiliary": not at all, a second head names the class (AC-GAN,
            Odena et al. 2017). Attributes are always planes, except under "projection".
    """

    def __init__(
        self, shape: ImageShape, width: int, *, norm: NormKind = "none", conditioning: Conditioning = "concat"
    ) -> None:
        super().__init__()
        self.plane_classes = shape.num_classes if conditioning == "concat" else 0
        self.plane_attributes = 0 if conditioning == "projection" else shape.num_attributes
        widths = doubling_widths(width, shape.levels)
        befores = [shape.channels + self.plane_classes + self.plane_attributes, *widths]
        self.checkpointing = False
        self.layers = nn.ModuleList()
        for number, (before, after) in enumerate(zip(befores, [*widths, widths[-1]], strict=True)):
            strided = number < shape.levels
            self.layers.append(_convolution(shape.spatial_dims, before, after, strided, norm if number else "none"))
        values = widths[-1] * math.prod(shape.last_grid)
        self.score = nn.Linear(values, 1)
        self.classes = nn.Linear(values, shape.num_classes) if conditioning == "auxiliary" else None
        self.projection = Projection(widths[-1], shape) if conditioning == "projection" else None

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        features = torch.cat([images, *self._planes(condition, images)], dim=1)
        for layer in self.layers:
            features = recompute(self.checkpointing, activated, layer, features, _SLOPE)
        values = features.flatten(1)
        logits = self.score(values).squeeze(1)
        if self.projection is not None:
            logits = logits + self.projection(features.flatten(2).sum(dim=2), condition)
        return Judgement(logits, None if self.classes is None else self.classes(values))

    def _planes(self, condition: Condition, images: Tensor) -> list[Tensor]:
        """The condition's numbers, each as a constant plane [B, 1, *spatial]."""
        numbers = []
        if self.plane_classes:
            numbers.append(one_hot(condition.required_label(), self.plane_classes).to(images.dtype))
        if self.plane_attributes:
            assert condition.attributes is not None, "this discriminator needs attributes [B, A]"
            numbers.append(condition.attributes.to(images.dtype))
        single = [1] * (images.ndim - 2)
        return [part.view(*part.shape, *single).expand(-1, -1, *images.shape[2:]) for part in numbers]


def _convolution(dims: int, before: int, after: int, strided: bool, norm: NormKind) -> nn.Module:
    side, stride = (4, 2) if strided else (3, 1)
    conv = CONV[dims](before, after, side, stride=stride, padding=1)
    if norm == "batch":
        return nn.Sequential(conv, BATCH_NORM[dims](after))
    if norm == "layer":
        return nn.Sequential(conv, nn.GroupNorm(num_groups=1, num_channels=after, affine=False))
    return conv
