"""Autoencoders of images, 2D and 3D: through a few numbers, or through a whole pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
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
    """One linear layer, then doublings with a convolution each: [B, numbers] -> [B, channels, *spatial].

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
            features = leaky_relu(layer(interpolate(features, scale_factor=2, mode="nearest")), _SLOPE)
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

    Ronneberger, Fischer & Brox, MICCAI 2015. Inputs are padded at the end to what the halvings divide.
    """

    def __init__(self, shape: ImageShape, width: int, levels: int = 3) -> None:
        super().__init__()
        conv, levels = CONV[shape.spatial_dims], min(levels, shape.levels)
        widths = doubling_widths(width, levels + 1)
        self.enter = conv(shape.channels, width, 3, padding=1)
        self.down = nn.ModuleList([conv(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)])
        self.up = nn.ModuleList(
            [conv(before + after, before, 3, padding=1) for before, after in reversed(list(pairwise(widths)))]
        )
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
        for layer, beside in zip(self.up, reversed(seen), strict=True):
            features = interpolate(features, scale_factor=2, mode="nearest")
            features = leaky_relu(layer(torch.cat([features, beside], dim=1)), _SLOPE)
        return _cropped(self.leave(features), size)


def _cropped(images: Tensor, size: Sequence[int]) -> Tensor:
    """The first voxels along each axis."""
    for axis, side in enumerate(size, start=2):
        images = images.narrow(axis, 0, side)
    return images
