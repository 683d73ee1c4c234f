"""Discriminators."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.nets.conditions import Condition, Judgement, recompute
from pipeline.nets.layers import CONV
from pipeline.nets.sizes import ImageShape, doubling_widths, doublings

_SLOPE = 0.1


class StridedTrunk(nn.Module):
    """Spectrally normalised strided convolutions: [B, C, *spatial] -> [B, features, *grid].

    Args:
        width: channels of the first layer; they double with each halving of the grid.
    """

    def __init__(self, *, spatial_size: Sequence[int], channels: int, width: int) -> None:
        super().__init__()
        dims, levels = len(spatial_size), doublings(spatial_size)
        conv = CONV[dims]
        widths = doubling_widths(width, levels)
        layers = [
            spectral_norm(conv(before, after, 4, stride=2, padding=1))
            for before, after in zip([channels, *widths], widths, strict=False)
        ]
        self.layers = nn.ModuleList([*layers, spectral_norm(conv(widths[-1], widths[-1], 3, padding=1))])
        self.features = widths[-1]
        self.checkpointing = False

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            images = recompute(self.checkpointing, activated, layer, images, _SLOPE)
        return images


def activated(layer: nn.Module, features: Tensor, slope: float) -> Tensor:
    """The layer's output behind a leaky rectifier."""
    return leaky_relu(layer(features), slope)


class Projection(nn.Module):
    """Inner product of pooled features [B, features] with the condition's embedding, [B].

    Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018; attributes enter by a linear embedding, as in
    Ding et al., "CcGAN: Continuous Conditional Generative Adversarial Networks", ICLR 2021.
    """

    def __init__(self, features: int, shape: ImageShape) -> None:
        super().__init__()
        self.embedding = spectral_norm(nn.Embedding(shape.num_classes, features))
        attributes = shape.num_attributes
        self.attributes = spectral_norm(nn.Linear(attributes, features)) if attributes else None

    def forward(self, pooled: Tensor, condition: Condition) -> Tensor:
        embedded = self.embedding(condition.required_label())
        if self.attributes is not None:
            embedded = embedded + self.attributes(condition.attributes)
        return (embedded * pooled).sum(dim=1)


class ProjectionDiscriminator(nn.Module):
    """Spectrally normalised strided convolutions, sum pooling and class projection, in 2D or 3D.

    Miyato et al., "Spectral Normalization for GANs" and "cGANs with Projection Discriminator", both ICLR 2018.

    Args:
        width: channels of the first layer; they double with each halving of the grid.
    """

    def __init__(self, shape: ImageShape, width: int) -> None:
        super().__init__()
        self.trunk = StridedTrunk(spatial_size=shape.spatial_size, channels=shape.channels, width=width)
        self.score = spectral_norm(nn.Linear(self.trunk.features, 1))
        self.projection = Projection(self.trunk.features, shape)

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        pooled = self.trunk(images).flatten(2).sum(dim=2)
        return Judgement(logits=self.score(pooled).squeeze(1) + self.projection(pooled, condition))
