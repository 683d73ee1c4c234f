"""Layers of progressive growing: weights equalised at run time, pixel norm, deviation across a minibatch.

All from Karras et al., "Progressive Growing of GANs", ICLR 2018, sections 3 and 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pipeline.nets.layers import CONV


class EqualConv(nn.Module):
    """A convolution that keeps the grid, of weights drawn from N(0, 1) and scaled by gain / √fan_in when it is used.

    So all weights of a net have the same range for Adam, whatever their layer's size.

    Args:
        kernel: its side, odd.
        gain: √2 before a rectifier, 1 elsewhere.
        lr_multiplier: weights learn this many times as fast as others; what they start as does not change.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel: int,
        gain: float = math.sqrt(2),
        lr_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        layer = CONV[spatial_dims](in_channels, out_channels, kernel)
        self.weight = nn.Parameter(torch.randn_like(layer.weight) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = gain / math.sqrt(in_channels * kernel**spatial_dims) * lr_multiplier
        self.lr_multiplier, self.padding = lr_multiplier, kernel // 2
        self._convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[spatial_dims - 1]

    def forward(self, images: Tensor) -> Tensor:
        """[B, in_channels, *spatial] -> [B, out_channels, *spatial]."""
        return self._convolve(images, self.weight * self.scale, self.bias * self.lr_multiplier, padding=self.padding)


class EqualLinear(nn.Module):
    """A linear layer, equalised as `EqualConv`.

    Args:
        bias: what the bias starts at.
    """

    def __init__(
        self, in_features: int, out_features: int, gain: float = 1.0, lr_multiplier: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias / lr_multiplier))
        self.scale, self.lr_multiplier = gain / math.sqrt(in_features) * lr_multiplier, lr_multiplier

    def forward(self, features: Tensor) -> Tensor:
        return linear(features, self.weight * self.scale, self.bias * self.lr_multiplier)


class PixelNorm(nn.Module):
    """Every voxel's vector of channels to a mean square of 1; [B, C] or [B, C, *spatial]."""

    def forward(self, features: Tensor) -> Tensor:
        mean_square = features.float().square().mean(dim=1, keepdim=True)
        return features * torch.rsqrt(mean_square + 1e-8).to(features.dtype)


class MinibatchDeviation(nn.Module):
    """Adds a channel: the standard deviation over a group of images, averaged over channels and voxels.

    A generator without variety is found out by it. Image i is in group i mod (B / group size).

    Args:
        group_size: images a group; the largest divisor of the batch up to this is taken.
    """

    def __init__(self, group_size: int = 4) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, *spatial] -> [B, C + 1, *spatial]."""
        batch, _, *spatial = features.shape
        size = next(size for size in range(min(self.group_size, batch), 0, -1) if batch % size == 0)
        groups = features.float().reshape(size, batch // size, *features.shape[1:])
        deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().flatten(1).mean(dim=1)
        channel = deviation.repeat(size).view(batch, 1, *[1] * len(spatial)).expand(batch, 1, *spatial)
        return torch.cat([features, channel.to(features.dtype)], dim=1)
