"""The generator with spatially adaptive normalisation (SPADE)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from pipeline.nets.conditions import Condition, recompute
from pipeline.nets.generators import NoiseGenerator, doubled
from pipeline.nets.layers import AVERAGE_POOL, BATCH_NORM, CONV
from pipeline.nets.sizes import ImageShape, doubling_widths

_SLOPE = 0.2


class SpadeNorm(nn.Module):
    """Batch norm whose scale and shift at each voxel are a function of the mask around it, the class and attributes.

    (features [B, C, *grid], mask [B, 1, *grid], code [B, code_dim]) -> [B, C, *grid]. Scale and shift come from 3 x 3
    features of the mask by a 1 x 1 convolution, where Park et al. have 3 x 3, which costs more than the net itself.
    """

    def __init__(self, dims: int, channels: int, code_dim: int, hidden: int) -> None:
        super().__init__()
        conv = CONV[dims]
        self.norm = BATCH_NORM[dims](channels, affine=False)
        self.layout, self.label = conv(1, hidden, 3, padding=1), nn.Linear(code_dim, hidden)
        self.affine = conv(hidden, 2 * channels, 1)

    def forward(self, features: Tensor, mask: Tensor, code: Tensor) -> Tensor:
        label = self.label(code).view(len(code), -1, *[1] * (features.ndim - 2))
        scale, shift = self.affine(torch.relu(self.layout(mask) + label)).chunk(2, dim=1)
        normalised: Tensor = self.norm(features)
        return torch.addcmul(shift, normalised, 1 + scale)


class SpadeBlock(nn.Module):
    """Doubles the grid: a shortcut, and beside it SPADE, leaky ReLU and a 3 x 3 convolution."""

    def __init__(self, dims: int, before: int, after: int, code_dim: int, hidden: int) -> None:
        super().__init__()
        conv = CONV[dims]
        self.spade = SpadeNorm(dims, before, code_dim, hidden)
        self.conv, self.shortcut = conv(before, after, 3, padding=1), conv(before, after, 1, bias=False)

    def forward(self, features: Tensor, mask: Tensor, code: Tensor) -> Tensor:
        larger = doubled(features)
        change: Tensor = self.conv(leaky_relu(self.spade(larger, mask, code), _SLOPE))
        return change + self.shortcut(larger)


class SpadeGenerator(NoiseGenerator):
    """(z, condition) -> image [B, C, *spatial] in [-1, 1]: the mask says where, z says in which style.

    Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization", CVPR 2019. z, class and attributes
    make the first grid; mask, class and attributes act in every block. Smaller masks are means of the whole one, so
    that a small lesion fades but is not lost.

    Args:
        width: channels of the last block's input; they double with each halving of the grid.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int) -> None:
        super().__init__(shape, latent_dim, embedding_dim)
        dims, widths = shape.spatial_dims, doubling_widths(width, shape.levels)[::-1]
        steps = zip(widths, [*widths[1:], max(width // 2, 1)], strict=True)
        self.start = nn.Linear(latent_dim + self.code.size, widths[0] * math.prod(self.grid))
        self.blocks = nn.ModuleList([SpadeBlock(dims, *step, self.code.size, hidden=width) for step in steps])
        self.halved = AVERAGE_POOL[dims](2)
        self.last = CONV[dims](max(width // 2, 1), shape.channels, 3, padding=1)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        code = self.code(condition)
        features = self.start(torch.cat([z, code], dim=1)).view(len(z), -1, *self.grid)
        for block, mask in zip(self.blocks, self.masks(condition.required_mask()), strict=True):
            features = recompute(self.checkpointing, block, features, mask, code)
        return self.finished(self.last(leaky_relu(features, _SLOPE)))

    def masks(self, mask: Tensor) -> list[Tensor]:
        """The mask on the blocks' grids, the smallest first; what the last crop takes away is background."""
        borders: list[int] = []
        for side, first in zip(reversed(self.spatial_size), reversed(self.grid), strict=True):
            over = first * 2 ** len(self.blocks) - side
            borders += [over // 2, over - over // 2]
        found = [pad(mask, borders)]
        for _ in self.blocks[1:]:
            found.append(self.halved(found[-1]))
        return found[::-1]
