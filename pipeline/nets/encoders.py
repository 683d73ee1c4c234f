"""What autoencoding adds to a generator: an encoder, its posterior, and a discriminator that shows its features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.nets.conditions import Condition, ConditionCode, Judgement, recompute
from pipeline.nets.discriminators import ProjectionDiscriminator
from pipeline.nets.layers import BATCH_NORM, CONV
from pipeline.nets.sizes import ImageShape, doubling_widths

_SLOPE = 0.2


@dataclass(frozen=True)
class Posterior:
    """A Gaussian with independent dimensions over z.

    Attributes:
        mean, log_variance: [B, latent_dim].
    """

    mean: Tensor
    log_variance: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """z [B, latent_dim] from standard normal `noise` of that shape, differentiable (reparametrised)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def divergence(self) -> Tensor:
        """KL(posterior || standard normal) in nats, [B] (Kingma & Welling, "Auto-Encoding Variational Bayes", 2014)."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).sum(dim=1)

    def float(self) -> Posterior:
        """The same in float32."""
        return Posterior(self.mean.float(), self.log_variance.float())


class Encoder(nn.Module):
    """Strided convolutions with batch norm: images [B, C, *spatial] and their condition -> Posterior, in 2D or 3D.

    The last grid is not pooled: where something lies matters. Class and attributes join it before the linear layer.

    Args:
        width: channels of the first layer; they double with each halving of the grid.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int) -> None:
        super().__init__()
        conv, norm = CONV[shape.spatial_dims], BATCH_NORM[shape.spatial_dims]
        widths = doubling_widths(width, shape.levels)
        self.layers = nn.ModuleList(
            [
                conv(before, after, 4, stride=2, padding=1)
                for before, after in zip([shape.channels, *widths], widths, strict=False)
            ]
        )
        self.norms = nn.ModuleList([norm(features) for features in widths])
        self.code = ConditionCode(shape.num_classes, embedding_dim, shape.num_attributes)
        self.head = nn.Linear(widths[-1] * math.prod(shape.last_grid) + self.code.size, 2 * latent_dim)
        self.latent_dim = latent_dim
        self.checkpointing = False

    def forward(self, images: Tensor, condition: Condition) -> Posterior:
        features = images
        for layer, norm in zip(self.layers, self.norms, strict=True):
            features = recompute(self.checkpointing, _halved, layer, norm, features)
        joined = torch.cat([features.flatten(1), self.code(condition)], dim=1)
        return Posterior(*self.head(joined).chunk(2, dim=1))


def _halved(layer: nn.Module, norm: nn.Module, features: Tensor) -> Tensor:
    return nn.functional.leaky_relu(norm(layer(features)), _SLOPE)


class FeatureDiscriminator(ProjectionDiscriminator):
    """A projection discriminator whose judgement shows its last grid of features, [B, features, *grid].

    They are what a VAE-GAN compares images by (Larsen et al., "Autoencoding beyond pixels using a learned similarity
    metric", ICML 2016).
    """

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        grid = self.trunk(images)
        pooled = grid.flatten(2).sum(dim=2)
        logits = self.score(pooled).squeeze(1) + self.projection(pooled, condition)
        return Judgement(logits=logits, features=(grid,))
