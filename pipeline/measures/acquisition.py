"""What tells how an image was acquired rather than what it shows: noise, sharpness, brightness, contrast, detail."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.measures.spectra import radial_spectra

STATISTICS = ("noise", "sharpness", "brightness", "contrast", "fine detail", "middle detail")


def acquisition_statistics(images: Tensor) -> Tensor:
    """STATISTICS of each image: [B, 6], float32 on the CPU.

    - noise: the standard deviation of white noise (`noise_level`);
    - brightness, contrast: the median and the interquartile range;
    - fine and middle detail: mean power in decibels (`radial_spectra`) in the octave of spatial frequency below the
      Nyquist frequency, and in the one below that. Lower frequencies show anatomy and lesions more than the scanner;
    - sharpness: fine detail less middle detail.

    A figure of an image with several channels is the mean over them.

    Args:
        images: [B, C, *spatial] in [-1, 1], 2D or 3D, with sides of at least 8.

    Raises:
        ValueError: a side is shorter.
    """
    if min(images.shape[2:]) < 8:
        raise ValueError(f"acquisition statistics need sides of at least 8; these are {list(images.shape[2:])}")
    planes = images.detach().to("cpu", torch.float32).flatten(0, 1)[:, None]
    low, median, high = _quartiles(planes.flatten(1))
    spectra = radial_spectra(planes)
    nyquist = spectra.shape[1]
    fine, middle = spectra[:, nyquist // 2 :].mean(dim=1), spectra[:, nyquist // 4 : nyquist // 2].mean(dim=1)
    found = torch.stack([noise_level(planes), fine - middle, median, high - low, fine, middle], dim=1)
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


def _quartiles(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row of [B, n], with linear interpolation."""
    ordered = values.sort(dim=1).values
    last = ordered.shape[1] - 1

    def at(share: float) -> Tensor:
        place = share * last
        below, above = ordered[:, math.floor(place)], ordered[:, math.ceil(place)]
        return below + (above - below) * (place - math.floor(place))

    return at(0.25), at(0.5), at(0.75)
