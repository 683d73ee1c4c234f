"""Image generators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.nets.conditions import Condition, ConditionCode, recompute
from pipeline.nets.layers import BATCH_NORM, CONV
from pipeline.nets.sizes import ImageShape, doubling_widths

Norm = Literal["batch", "group"]
_GROUPS = 8


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are a linear function of the condition's code (de Vries et al. 2017).

    [B, C, *spatial], code [B, code_dim] -> [B, C, *spatial]. With `norm: group` no image sees another one.
    """

    def __init__(self, spatial_dims: int, channels: int, code_dim: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.norm = norm_layer(norm, spatial_dims, channels, affine=False)
        self.affine = nn.Linear(code_dim, 2 * channels)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.affine(code).view(*code.shape[:1], -1, *([1] * (features.ndim - 2))).chunk(2, dim=1)
        normalised: Tensor = self.norm(features)
        return torch.addcmul(shift, normalised, 1 + scale)


def norm_layer(norm: Norm, spatial_dims: int, channels: int, *, affine: bool = True) -> nn.Module:
    """Batch norm, or group norm over up to 8 groups of channels (Wu & He, ECCV 2018)."""
    if norm == "group":
        return nn.GroupNorm(math.gcd(channels, _GROUPS), channels, affine=affine)
    batch_norm: nn.Module = BATCH_NORM[spatial_dims](channels, affine=affine)
    return batch_norm


class NoiseGenerator(nn.Module):
    """What generators share that draw images on ever larger grids, from z beside the condition's code.

    Attributes:
        code: class and attributes as one vector.
        grid: the first grid; sides that are not a power of two times it are cropped at the centre.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.latent_dim, self.spatial_size, self.grid = latent_dim, shape.spatial_size, shape.grid
        self.code = ConditionCode(shape.num_classes, embedding_dim, shape.num_attributes)
        self.checkpointing = False

    def finished(self, features: Tensor) -> Tensor:
        """The last layer's values as images in [-1, 1] of the wanted size."""
        return torch.tanh(centre_crop(features, self.spatial_size))


class ConvGenerator(NoiseGenerator):
    """Class-conditional generator of nearest-neighbour doublings and 3 x 3 convolutions, in 2D or 3D.

    Class and attributes beside z make the code that feeds the first grid and every norm. Channels halve with each
    doubling of the grid. (Transposed convolutions would be cheaper, but leave a lattice in small images.)

    Args:
        width: channels before the last layer.
    """

    def __init__(
        self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int, norm: Norm = "batch"
    ) -> None:
        super().__init__(shape, latent_dim, embedding_dim)
        dims, widths = shape.spatial_dims, doubling_widths(width, shape.levels)[::-1]
        code_dim = latent_dim + self.code.size
        self.start = nn.Linear(code_dim, widths[0] * math.prod(self.grid))
        self.norms = nn.ModuleList([ConditionalBatchNorm(dims, features, code_dim, norm) for features in widths])
        conv = CONV[dims]
        self.layers = nn.ModuleList(
            [conv(*step, 3, padding=1) for step in zip(widths, [*widths[1:], shape.channels], strict=True)]
        )

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        code = torch.cat([z, self.code(condition)], dim=1)
        features = self.start(code).view(len(z), -1, *self.grid)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            features = recompute(self.checkpointing, _doubled, norm, layer, features, code)
        return self.finished(features)


def _doubled(norm: nn.Module, layer: nn.Module, features: Tensor, code: Tensor) -> Tensor:
    return layer(doubled(torch.relu(norm(features, code))))


def doubled(features: Tensor) -> Tensor:
    """Every side of the grid twice as long, by nearest neighbours."""
    return interpolate(features, scale_factor=2.0, mode="nearest")


def centre_crop(images: Tensor, spatial_size: Sequence[int]) -> Tensor:
    for axis, side in enumerate(spatial_size, start=2):
        if images.shape[axis] != side:
            images = images.narrow(axis, (images.shape[axis] - side) // 2, side)
    return images
