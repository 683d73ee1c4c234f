"""Intensities of whole images: standardised, equalised, matched to others, with others' coarse Fourier amplitudes.

Every function takes images [N, C, *spatial] in [-1, 1], 2D or 3D, as numpy arrays, and returns float32 ones in [-1, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.floating]
SPREAD = 3.0
"""Standard deviations about the mean that a standardised image's range has."""
BINS = 256
BETA = 0.09
"""Of `with_amplitudes`: the largest of the paper's, since at 32 voxels a side the smaller ones swap the mean alone."""


def standardised(images: Images) -> Images:
    """Each image less its mean, over its standard deviation; three of these become 1, and what is beyond is clipped.

    An image of one value becomes 0.
    """
    axes = tuple(range(1, images.ndim))
    centred = images - images.mean(axis=axes, keepdims=True, dtype=np.float64)
    spread = centred.std(axis=axes, keepdims=True)
    scaled = np.divide(centred, SPREAD * spread, out=np.zeros_like(centred), where=spread > 1e-6)
    return np.clip(scaled, -1, 1).astype(np.float32)


def equalised(images: Images) -> Images:
    """Histogram equalisation: each value becomes its share among the image's, over 256 bins, [0, 1] being [-1, 1].

    That of `skimage.exposure.equalize_hist`: the cumulative share at the middles of bins, linear between them.
    """
    return np.stack([_equalised(image) for image in images]).astype(np.float32)


def _equalised(image: Images) -> Images:
    counts, edges = np.histogram(image, bins=BINS)
    shares = np.cumsum(counts) / image.size
    return 2 * np.interp(image, (edges[:-1] + edges[1:]) / 2, shares) - 1


def distribution(images: Images) -> tuple[Images, Images]:
    """The values that occur in all the images together, ascending, and the share of voxels up to each."""
    values, counts = np.unique(images, return_counts=True)
    return values, np.cumsum(counts) / images.size


def matched(images: Images, reference: tuple[Images, Images]) -> Images:
    """Histogram matching: each value becomes the reference's at the same cumulative share, linear between its values.

    That of `skimage.exposure.match_histograms`, all channels together.

    Args:
        reference: a `distribution`.
    """
    values, shares = reference
    return np.stack([_matched(image, values, shares) for image in images]).astype(np.float32)


def _matched(image: Images, values: Images, shares: Images) -> Images:
    _, places, counts = np.unique(image, return_inverse=True, return_counts=True)
    own = np.cumsum(counts) / image.size
    found: Images = np.interp(own, shares, values)[places.reshape(image.shape)]
    return found


def with_amplitudes(images: Images, others: Images, beta: float = BETA) -> Images:
    """Fourier domain adaptation: the images with the lowest frequencies' amplitudes of others and their own phases.

    Yang & Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR 2020, equation 3. The frequencies
    are those whose number lies, on every axis, at most floor(beta x smallest side) from 0. Amplitudes are of
    intensities from 0 on, as in the paper: else that of frequency 0, the mean, would lose its sign.

    Args:
        others: [N, C, *spatial], one for each image.
    """
    axes = tuple(range(2, images.ndim))
    sides = images.shape[2:]
    reach = int(beta * min(sides))
    low = np.ones(sides, dtype=bool)
    for axis, side in enumerate(sides):
        near = np.abs(np.rint(np.fft.fftfreq(side) * side)) <= reach
        low &= near.reshape([-1 if place == axis else 1 for place in range(len(sides))])
    own, theirs = np.fft.fftn(images + 1, axes=axes), np.fft.fftn(others + 1, axes=axes)
    mixed = np.where(low, np.abs(theirs), np.abs(own)) * np.exp(1j * np.angle(own))
    return np.clip(np.fft.ifftn(mixed, axes=axes).real - 1, -1, 1).astype(np.float32)


def recentred(images: Images, mean: Images, common: Images) -> Images:
    """The images less a mean image [C, *spatial] of theirs, plus a common one."""
    return np.clip(images - mean + common, -1, 1).astype(np.float32)
