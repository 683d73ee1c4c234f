"""Discriminators."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.sizes import doublings

_SLOPE = 0.1


class ProjectionDiscriminator(nn.Module):
    """Spectrally normalised strided convolutions, sum pooling and class projection, in 2D or 3D.

    Miyato et al., "Spectral Normalization for GANs" and "cGANs with Projection Discriminator", both ICLR 2018.

    Args:
        spatial_size: *spatial of the images.
        width: channels of the first layer; they double with each halving of the grid.
    """

    def __init__(self, *, spatial_size: Sequence[int], channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        dims, levels = len(spatial_size), doublings(spatial_size)
        conv = Conv[Conv.CONV, dims]
        widths = [width * 2**level for level in range(levels)]
        layers: list[nn.Module] = []
        for before, after in zip([channels, *widths], widths, strict=False):
            layers += [spectral_norm(conv(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(_SLOPE)]
        layers += [spectral_norm(conv(widths[-1], widths[-1], 3, padding=1)), nn.LeakyReLU(_SLOPE)]
        self.trunk = nn.Sequential(*layers)
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.embedding = spectral_norm(nn.Embedding(num_classes, widths[-1]))

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        pooled = self.trunk(images).flatten(2).sum(dim=2)
        logits = self.score(pooled).squeeze(1) + (self.embedding(condition.required_label()) * pooled).sum(dim=1)
        return Judgement(logits=logits)
