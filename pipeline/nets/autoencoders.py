"""Autoencoders of images, 2D and 3D: through a few numbers, or through a whole pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from pipeline.nets.layers import CONV
from pipeline.nets.sizes import ImageShape, doubling_widths

_SLOPE = 0.1


class ImageEncoder(nn.Module):
    """Strided convolutions down to the smallest grid, then one linear layer: [B, C, *spatial] -> [B, numbers]."""

    def __init__(self, shape: ImageShape, width: int, numbers: int) -> None:
        super().__init__()
        conv = CONV[shape.spatial_dims]
        widths = [shape.channels, *doubling_widths(width, shape.levels)]
        self.layers = nn.ModuleList([conv(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)])
        self.last = nn.Linear(widths[-1] * math.prod(shape.last_grid), numbers)

    def forward(self, images: Tensor) -> Tensor:
        features = images
        for layer in self.layers:
            features = leaky_relu(layer(features), _SLOPE)
        numbers: Tensor = self.last(features.flatten(1))
        return numbers


class ImageDecoder(nn.Module):
    """One linear layer, then convolutions with a doubling after each: [B, numbers] -> [B, channels, *spatial].

    A convolution comes before its doubling, where it costs a quarter (in 3D an eighth) of what it would cost behind it.

    Args:
        channels: that come out; the image's unless told otherwise.
    """

    def __init__(self, shape: ImageShape, width: int, numbers: int, channels: int | None = None) -> None:
        super().__init__()
        conv = CONV[shape.spatial_dims]
        self.grid, self.spatial_size = shape.grid, shape.spatial_size
        widths = doubling_widths(width, shape.levels + 1)[::-1]
        self.first = nn.Linear(numbers, widths[0] * math.prod(self.grid))
        self.layers = nn.ModuleList([conv(before, after, 3, padding=1) for before, after in pairwise(widths)])
        self.last = conv(widths[-1], channels or shape.channels, 3, padding=1)

    def forward(self, numbers: Tensor) -> Tensor:
        features = leaky_relu(self.first(numbers), _SLOPE).unflatten(1, (-1, *self.grid))
        for layer in self.layers:
            features = interpolate(leaky_relu(layer(features), _SLOPE), scale_factor=2, mode="nearest")
        return _cropped(self.last(features), self.spatial_size)


class Autoencoder(nn.Module):
    """An encoder and a decoder with `numbers` numbers between them.

    Args:
        channels: that come out, as of `ImageDecoder`.
        spread: whether the encoder gives a mean and a log variance of each number, of which the mean is decoded.
    """

    def __init__(
        self, shape: ImageShape, width: int, numbers: int, channels: int | None = None, *, spread: bool = False
    ) -> None:
        super().__init__()
        self.encoder = ImageEncoder(shape, width, 2 * numbers if spread else numbers)
        self.decoder = ImageDecoder(shape, width, numbers, channels)
        self.spread = spread

    def forward(self, images: Tensor) -> Tensor:
        code = self.encoder(images)
        decoded: Tensor = self.decoder(code.chunk(2, dim=1)[0] if self.spread else code)
        return decoded


class DenoisingPyramid(nn.Module):
    """A small U-net: halvings, doublings, and what was seen on the way down beside what comes up; [B, C, *spatial].

    Ronneberger, Fischer & Brox, MICCAI 2015. The two sides are convolved apart and added, which is what a convolution
    of both together does, so that what comes up is convolved before it is doubled: a quarter of the work. Inputs are
    padded at the end to what the halvings divide.

    Args:
        width: channels at the image's own size; twice as many with each halving.
    """

    def __init__(self, shape: ImageShape, width: int, levels: int = 4) -> None:
        super().__init__()
        conv, levels = CONV[shape.spatial_dims], min(levels, shape.levels)
        widths = doubling_widths(width, levels + 1)
        steps = list(pairwise(widths))
        self.enter = conv(shape.channels, width, 3, padding=1)
        self.down = nn.ModuleList([conv(before, after, 4, stride=2, padding=1) for before, after in steps])
        self.up = nn.ModuleList([conv(after, before, 3, padding=1) for before, after in reversed(steps)])
        self.beside = nn.ModuleList([conv(before, before, 3, padding=1, bias=False) for before, _ in reversed(steps)])
        self.leave = conv(width, shape.channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        factor, size = 2 ** len(self.down), images.shape[2:]
        over = [-side % factor for side in size]
        padding = [number for extra in reversed(over) for number in (0, extra)]
        features = leaky_relu(self.enter(nn.functional.pad(images, padding, mode="replicate")), _SLOPE)
        seen = []
        for layer in self.down:
            seen.append(features)
            features = leaky_relu(layer(features), _SLOPE)
        for layer, beside, known in zip(self.up, self.beside, reversed(seen), strict=True):
            coming = interpolate(layer(features), scale_factor=2, mode="nearest")
            features = leaky_relu(coming + beside(known), _SLOPE)
        return _cropped(self.leave(features), size)


class FeatureAutoencoder(nn.Module):
    """Feature maps of planes through a narrower and coarser grid, [B, D, rows, columns] of any size; no skips.

    After Meissen et al. (2022): convolutions of stride 2 down, interpolation and convolutions up.

    Args:
        features: D.
        widths: channels behind each halving of the grid.
    """

    def __init__(self, features: int, widths: Sequence[int]) -> None:
        super().__init__()
        steps = list(pairwise([features, *widths]))
        self.down = nn.ModuleList([nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in steps])
        back = pairwise([*reversed(widths), widths[0]])
        self.up = nn.ModuleList([nn.Conv2d(before, after, 3, padding=1) for before, after in back])
        self.last = nn.Conv2d(widths[0], features, 1)

    def forward(self, maps: Tensor) -> Tensor:
        features, grids = maps, []
        for layer in self.down:
            grids.append(features.shape[2:])
            features = leaky_relu(layer(features), _SLOPE)
        for layer, grid in zip(self.up, reversed(grids), strict=True):
            features = leaky_relu(layer(features), _SLOPE)
            features = interpolate(features, grid, mode="bilinear", align_corners=False)
        restored: Tensor = self.last(features)
        return restored


def _cropped(images: Tensor, size: Sequence[int]) -> Tensor:
    """The first voxels along each axis."""
    for axis, side in enumerate(size, start=2):
        images = images.narrow(axis, 0, side)
    return images
