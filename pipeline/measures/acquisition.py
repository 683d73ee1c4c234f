"""What tells how an image was acquired rather than what it shows: noise, sharpness, brightness, contrast, detail."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.measures.spectra import radial_spectra

STATISTICS = ("noise", "sharpness", "brightness", "contrast", "fine detail", "middle detail", "coarse detail")
_OCTAVES = 3
_BOX = 9
"""Voxels that the strong blur of the sharpness averages over."""


def acquisition_statistics(images: Tensor) -> Tensor:
    """STATISTICS of each image: [B, 7], float32 on the CPU.

    - noise: the standard deviation of white noise (`noise_level`);
    - sharpness: how much of the variation between neighbours a strong blur takes away, 0 to 1 (`sharpness`);
    - brightness, contrast: the median and the interquartile range;
    - fine, middle and coarse detail: mean power in decibels (`radial_spectra`) in the three octaves of spatial frequency
      below the Nyquist frequency. Lower frequencies show anatomy and lesions more than the scanner, and are left out.

    A figure of an image with several channels is the mean over them.

    Args:
        images: [B, C, *spatial] in [-1, 1], 2D or 3D, with sides of at least 8.

    Raises:
        ValueError: a side is shorter.
    """
    if min(images.shape[2:]) < 8:
        raise ValueError(f"acquisition statistics need sides of at least 8; these are {list(images.shape[2:])}")
    planes = images.detach().to("cpu", torch.float32).flatten(0, 1)[:, None]
    low, middle, high = _quartiles(planes.flatten(1))
    spectra = radial_spectra(planes)
    nyquist = spectra.shape[1]
    edges = [nyquist // 2**octave for octave in range(_OCTAVES + 1)]
    octaves = [spectra[:, below:upper].mean(dim=1) for upper, below in zip(edges[:-1], edges[1:], strict=True)]
    found = torch.stack([noise_level(planes), sharpness(planes), middle, high - low, *octaves], dim=1)
    return found.unflatten(0, (len(images), -1)).mean(dim=1)


def noise_level(images: Tensor) -> Tensor:
    """Standard deviation [B] of the noise: Immerkær, Computer Vision and Image Understanding 64 (1996).

    The second difference along every axis cancels what is linear along any of them, so that edges and slopes hardly
    count; the mean of its size over white noise gives the noise's deviation. In 3D there is one difference more. Places
    with a voxel at either end of [-1, 1] are left out, since values cut off by the window show no noise; 0 where
    nothing is left.

    Args:
        images: [B, C, *spatial] in [-1, 1].
    """
    residual, inside = images, images.abs() < 1
    for axis in range(2, images.ndim):
        count = images.shape[axis] - 2
        first, second, third = (residual.narrow(axis, start, count) for start in range(3))
        residual = first - 2 * second + third
        first, second, third = (inside.narrow(axis, start, count) for start in range(3))
        inside = first & second & third
    size = (residual.abs() * inside).flatten(1).sum(dim=1) / inside.flatten(1).sum(dim=1).clamp_min(1)
    return math.sqrt(math.pi / 2) * size / 6 ** ((images.ndim - 2) / 2)


def sharpness(images: Tensor) -> Tensor:
    """1 - the blur of Crété et al. (SPIE 6492, 2007), [B] in [0, 1]: the mean over axes; 0 for a constant image.

    A sharp image loses most of the variation between neighbours to a strong blur along their axis, a blurred one
    has little to lose.

    Args:
        images: [B, C, *spatial].
    """
    found = []
    for axis in range(2, images.ndim):
        variation = images.diff(dim=axis).abs()
        lost = (variation - _box_blurred(images, axis).diff(dim=axis).abs()).clamp_min(0)
        total = variation.flatten(1).sum(dim=1)
        found.append(lost.flatten(1).sum(dim=1) / total.clamp_min(torch.finfo(total.dtype).tiny))
    return torch.stack(found).mean(dim=0)


def _box_blurred(images: Tensor, axis: int) -> Tensor:
    """The running mean over _BOX voxels along `axis`; borders are repeated."""
    moved = images.movedim(axis, -1)
    lines = F.pad(moved.flatten(0, -2)[:, None], (_BOX // 2, _BOX // 2), mode="replicate")
    return F.avg_pool1d(lines, _BOX, stride=1)[:, 0].view(moved.shape).movedim(-1, axis)


def _quartiles(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row of [B, n], with linear interpolation."""
    ordered = values.sort(dim=1).values
    last = ordered.shape[1] - 1

    def at(share: float) -> Tensor:
        place = share * last
        below, above = ordered[:, math.floor(place)], ordered[:, math.ceil(place)]
        return below + (above - below) * (place - math.floor(place))

    return at(0.25), at(0.5), at(0.75)
