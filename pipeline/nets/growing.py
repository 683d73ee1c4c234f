"""Generator and discriminator that grow from the first grid to full size, in 2D or 3D.

Karras et al., "Progressive Growing of GANs for Improved Quality, Stability, and Variation", ICLR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot, pad

from pipeline.nets.conditions import Condition, ConditionCode, Judgement, recompute
from pipeline.nets.equalised import EqualConv, EqualLinear, MinibatchDeviation, PixelNorm
from pipeline.nets.generators import centre_crop, doubled
from pipeline.nets.layers import AVERAGE_POOL
from pipeline.nets.sizes import ImageShape, doubling_widths

_SLOPE = 0.2
_LOWEST = -1.0


class Growing(nn.Module):
    """A net with `levels` + 1 grids, each twice the one before, and a buffer that says how far it has grown.

    `growth` g is a number from 0 (the first grid) to `levels` (full size, as a new net is); between l - 1 and l, level
    l is faded in with share g - (l - 1). All levels are always computed, those that are not grown yet with share 0: no
    branch on values, and a step costs the same from first to last.
    """

    growth: Tensor

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.levels, self.spatial_size, self.grid = shape.levels, shape.spatial_size, shape.grid
        self.register_buffer("growth", torch.tensor(float(self.levels)))

    def share(self, level: int) -> Tensor:
        """How far `level` (1 ... levels) is faded in, 0 to 1."""
        return (self.growth - (level - 1)).clamp(0, 1)


class GrowingGenerator(Growing):
    """Each level makes an image of its own; the image is that of the current level, enlarged to full size.

    Equalised weights; pixel norm of the input and after each layer; z and the condition's code enter side by side.

    Args:
        width: channels at full size; they double with each halving of the grid.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int) -> None:
        super().__init__(shape)
        dims, widths = shape.spatial_dims, doubling_widths(width, shape.levels + 1)[::-1]
        self.latent_dim = latent_dim
        self.code = ConditionCode(shape.num_classes, embedding_dim, shape.num_attributes)
        self.start = EqualLinear(latent_dim + self.code.size, widths[0] * math.prod(self.grid), gain=math.sqrt(2))
        first = _UpBlock(dims, [widths[0], widths[0]], doubles=False)
        others = [_UpBlock(dims, [before, after, after], doubles=True) for before, after in pairwise(widths)]
        self.blocks = nn.ModuleList([first, *others])
        self.images = nn.ModuleList(EqualConv(dims, features, shape.channels, 1, gain=1) for features in widths)
        self.norm = PixelNorm()
        self.checkpointing = False

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        code = self.norm(torch.cat([z, self.code(condition)], dim=1))
        features = self.start(code).view(len(z), -1, *self.grid)
        features = self.norm(leaky_relu(features, _SLOPE))
        whole: Tensor | None = None
        for level, (block, to_image) in enumerate(zip(self.blocks, self.images, strict=True)):
            features = recompute(self.checkpointing, block, features)
            image = torch.tanh(to_image(features)).float()
            whole = image if whole is None else torch.lerp(doubled(whole), image, self.share(level))
        assert whole is not None
        return centre_crop(whole, self.spatial_size)


class GrowingDiscriminator(Growing):
    """Images are halved to the current level's grid and enter there; below it, features are halved.

    Equalised weights, deviation across the minibatch before the last convolution, projection. An image that is
    smaller than the whole grid is framed in the lowest value, so that its halvings lie where the generator's do.

    Args:
        width: channels at full size; they double with each halving of the grid.
    """

    def __init__(self, shape: ImageShape, width: int) -> None:
        super().__init__(shape)
        dims, widths = shape.spatial_dims, doubling_widths(width, shape.levels + 1)[::-1]
        self.images = nn.ModuleList(EqualConv(dims, shape.channels, features, 1) for features in widths)
        self.blocks = nn.ModuleList(_DownBlock(dims, after, before) for before, after in pairwise(widths))
        self.deviation = MinibatchDeviation()
        self.last = EqualConv(dims, widths[0] + 1, widths[0], 3)
        self.dense = EqualLinear(widths[0] * math.prod(self.grid), widths[0], gain=math.sqrt(2))
        self.score = EqualLinear(widths[0], 1)
        asked = shape.num_classes + shape.num_attributes
        self.embedding = EqualLinear(asked, widths[0], gain=math.sqrt(asked))
        self.num_classes, self.num_attributes = shape.num_classes, shape.num_attributes
        self.halve = AVERAGE_POOL[dims](2)
        self.checkpointing = False

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        images = self._framed(images)
        features = self._entered(images, self.levels)
        for level in range(self.levels, 0, -1):
            images = self.halve(images)
            halved = recompute(self.checkpointing, self.blocks[level - 1], features)
            entered = self._entered(images, level - 1)
            features = torch.lerp(entered.to(halved.dtype), halved, self.share(level).to(halved.dtype))
        features = leaky_relu(self.last(self.deviation(features)), _SLOPE)
        dense = leaky_relu(self.dense(features.flatten(1)), _SLOPE)
        projected = (self.embedding(self._asked(condition)) * dense).sum(dim=1) / math.sqrt(dense.shape[1])
        return Judgement(logits=self.score(dense).squeeze(1) + projected)

    def _entered(self, images: Tensor, level: int) -> Tensor:
        """Features of images on the grid of `level`."""
        return leaky_relu(self.images[level](images), _SLOPE)

    def _framed(self, images: Tensor) -> Tensor:
        """Images on the whole of the generator's last grid; the inverse of its cut."""
        frame: list[int] = []
        for side, grid in zip(self.spatial_size, self.grid, strict=True):
            over = grid * 2**self.levels - side
            frame = [over // 2, over - over // 2, *frame]
        return pad(images, frame, value=_LOWEST) if any(frame) else images

    def _asked(self, condition: Condition) -> Tensor:
        """Class (one number each) and attributes, [B, num_classes + num_attributes]."""
        asked = one_hot(condition.required_label(), self.num_classes).float()
        if condition.attributes is None or not self.num_attributes:
            return asked
        return torch.cat([asked, condition.attributes], dim=1)


class _UpBlock(nn.Module):
    """Doubling where asked, then 3 x 3 convolutions through `widths`, each with leaky relu and pixel norm."""

    def __init__(self, dims: int, widths: Sequence[int], *, doubles: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EqualConv(dims, before, after, 3) for before, after in pairwise(widths))
        self.norm, self.doubles = PixelNorm(), doubles

    def forward(self, features: Tensor) -> Tensor:
        if self.doubles:
            features = doubled(features)
        for layer in self.layers:
            features = self.norm(leaky_relu(layer(features), _SLOPE))
        return features


class _DownBlock(nn.Module):
    """Two 3 x 3 convolutions with leaky relu, then halving."""

    def __init__(self, dims: int, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = EqualConv(dims, before, before, 3), EqualConv(dims, before, after, 3)
        self.halve = AVERAGE_POOL[dims](2)

    def forward(self, features: Tensor) -> Tensor:
        features = leaky_relu(self.first(features), _SLOPE)
        halved: Tensor = self.halve(leaky_relu(self.second(features), _SLOPE))
        return halved
