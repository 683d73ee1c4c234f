"""Self-attention over the voxels of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.nets.layers import CONV, MAX_POOL


class SelfAttention(nn.Module):
    """Adds to every voxel what it finds elsewhere in the image, times a learned gate that starts at 0.

    [B, C, *grid] -> [B, C, *grid]. Zhang et al., "Self-Attention Generative Adversarial Networks", ICML 2019. Queries
    and keys have C / 8 channels, values C / 2; keys and values are max-pooled by 2 along every axis, as in the
    paper's code; similarities are not scaled.

    Memory: the table of N queries by N / 2^d keys is 4 N² / 2^d bytes an image, 64 KiB at 16², 8 MiB at 16³ (256
    MiB a batch of 32, and two such tables more for its gradient). The fused kernel never holds it: forward and
    backward of this layer at C = 10, 16³, batch 32, float32 on the CPU took 46 MiB at the peak, and 783 MiB with the
    table written out. (PyTorch's counter of FLOPs does not see that kernel on the CPU.)

    Args:
        channels: of the input; inner widths are at least 1.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        conv = CONV[spatial_dims]
        similar, carried = max(1, channels // 8), max(1, channels // 2)
        self.query = spectral_norm(conv(channels, similar, 1, bias=False))
        self.key = spectral_norm(conv(channels, similar, 1, bias=False))
        self.value = spectral_norm(conv(channels, carried, 1, bias=False))
        self.out = spectral_norm(conv(carried, channels, 1, bias=False))
        self.pool = MAX_POOL[spatial_dims](2)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        queries = self.query(features).flatten(2)
        keys, values = self.pool(self.key(features)).flatten(2), self.pool(self.value(features)).flatten(2)
        found = attend(queries, keys, values).view(len(features), -1, *features.shape[2:])
        return torch.addcmul(features, self.gate.to(features.dtype), self.out(found).to(features.dtype))


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """values · softmax(keysᵀ · queries) over the keys: [B, c, N], [B, c, M], [B, v, M] -> [B, v, N].

    Channels are filled up with zeros to one width, because the fused kernels want it; that changes no product.
    """
    carried = values.shape[1]
    width = max(queries.shape[1], carried)
    query, key, value = (
        pad(part, (0, 0, 0, width - part.shape[1])).mT[:, None].contiguous() for part in (queries, keys, values)
    )
    return scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0, :, :carried].mT.contiguous()


def attended_grid(grids: Sequence[Sequence[int]], longest_side: int) -> int | None:
    """Which of `grids` attention acts on: the largest whose longest side is at most `longest_side`; None = no one."""
    fitting = [number for number, grid in enumerate(grids) if max(grid) <= longest_side]
    return max(fitting, key=lambda number: math.prod(grids[number]), default=None)
