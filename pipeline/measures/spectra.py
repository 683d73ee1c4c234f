"""Radially averaged power spectra: generators tend to miss fine detail, or to add a grid of it."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

QUIET = 1e-8
"""Added to every power: some 30 dB below the rounding noise of 8 bits, so that a flat image has a logarithm."""


def radial_spectra(images: Tensor) -> Tensor:
    """Mean power of each image at each spatial frequency, in decibels: [N, R], float32 on the CPU.

    The power |DFT|² / voxels of the image less its mean (so that the sum over all frequencies is voxels times the
    variance) is averaged over circles (2D) or spheres (3D) of frequencies, over channels too, and its 10 log10 is
    taken: Durall et al., CVPR 2020. Circle r = 1 … R = shortest side // 2 holds the frequencies that round to
    r / shortest side cycles a voxel; R is the Nyquist frequency, and the corners beyond it are left out.

    Args:
        images: [N, C, *spatial] in [-1, 1], 2D or 3D, with sides of at least 2.
    """
    axes = tuple(range(2, images.ndim))
    images = images.float()
    power = torch.fft.fftn(images - images.mean(dim=axes, keepdim=True), dim=axes).abs() ** 2
    power = (power.mean(dim=1) / images[0, 0].numel()).flatten(1)
    circle = _circles(tuple(images.shape[2:])).to(images.device)
    number = min(images.shape[2:]) // 2 + 1
    sums = torch.zeros(len(images), number + 1, device=images.device).index_add_(1, circle, power)
    sizes = torch.bincount(circle, minlength=number + 1)
    return (10 * torch.log10(sums[:, 1:number] / sizes[1:number] + QUIET)).cpu()


@functools.cache
def _circles(spatial: tuple[int, ...]) -> Tensor:
    """The circle of each frequency of a DFT of this size, flat; R + 1 for those beyond the Nyquist frequency."""
    shortest = min(spatial)
    axes = torch.meshgrid(*(torch.fft.fftfreq(side, dtype=torch.float64) for side in spatial), indexing="ij")
    circle = (sum(axis**2 for axis in axes) ** 0.5 * shortest).round().long().flatten()
    return circle.clamp(max=shortest // 2 + 1)


def spectrum_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Root mean square difference of two sets' mean spectra over the frequencies, in decibels.

    Args:
        real: [N, R] of `radial_spectra`.
        fake: [M, R].
    """
    difference = real.mean(axis=0, dtype=np.float64) - fake.mean(axis=0, dtype=np.float64)
    return float(np.sqrt((difference**2).mean()))
