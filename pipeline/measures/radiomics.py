"""A plain radiomics vector of an image: first-order, co-occurrence and gradient features; and its Fréchet distance."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from pipeline.measures.frechet import fid

LEVELS = 16
NAMES = (
    "mean", "standard_deviation", "skewness", "kurtosis", "p10", "median", "p90", "entropy",
    "glcm_contrast", "glcm_correlation", "glcm_energy", "glcm_homogeneity", "glcm_entropy",
    "gradient_mean", "gradient_standard_deviation", "gradient_p90",
)  # fmt: skip
_FLAT = 1e-6


def radiomics(images: Tensor) -> Tensor:
    """The features `NAMES` of each image, [N, 16], float32 on the CPU. Channels are averaged first.

    First order, of the grey values in [-1, 1]: mean, standard deviation s (over voxels, not voxels - 1), skewness
    m3 / s³ and kurtosis m4 / s⁴ (3 for a Gaussian), percentiles 10, 50 and 90, entropy in bits over `LEVELS` equal
    grey levels. Of the grey-level co-occurrence of direct neighbours: `co_occurrence_features`, the mean over all
    directions. Of the gradient's magnitude (central differences, grey values a voxel): mean, standard deviation,
    percentile 90. A flat image has skewness and kurtosis 0. No shape features: there is no mask of a lesion here.

    Args:
        images: [N, C, *spatial] in [-1, 1], 2D or 3D, with sides of at least 2.
    """
    grey = images.float().mean(dim=1)
    levels = ((grey + 1) * (LEVELS / 2)).long().clamp(0, LEVELS - 1)
    by_direction = [co_occurrence_features(co_occurrence(levels, step)) for step in directions(grey.ndim - 1)]
    parts = [_first_order(grey, levels), torch.stack(by_direction).mean(dim=0), _gradients(grey)]
    return torch.cat(parts, dim=1).float().cpu()


def directions(spatial_dims: int) -> list[tuple[int, ...]]:
    """Steps to the direct neighbours, one of each opposite pair: 4 in 2D, 13 in 3D."""
    steps = itertools.product((-1, 0, 1), repeat=spatial_dims)
    return [step for step in steps if step > (0,) * spatial_dims]


def co_occurrence(levels: Tensor, step: tuple[int, ...], num_levels: int = LEVELS) -> Tensor:
    """How often grey levels i and j are neighbours along `step`, both ways counted: [N, num_levels, num_levels].

    Haralick, Shanmugam & Dinstein, IEEE Transactions on Systems, Man, and Cybernetics 3, 1973.

    Args:
        levels: [N, *spatial], whole numbers from 0 to num_levels - 1.
        step: voxels from one neighbour to the other, along each axis.
    """
    here = levels[:, *(slice(max(0, -s), side - max(0, s)) for s, side in zip(step, levels.shape[1:], strict=True))]
    there = levels[:, *(slice(max(0, s), side - max(0, -s)) for s, side in zip(step, levels.shape[1:], strict=True))]
    number = torch.arange(len(levels), device=levels.device).reshape(-1, *[1] * (levels.ndim - 1))
    pair = (number * num_levels + here) * num_levels + there
    counts = torch.bincount(pair.flatten(), minlength=len(levels) * num_levels**2)
    counts = counts.reshape(-1, num_levels, num_levels)
    return counts + counts.transpose(1, 2)


def co_occurrence_features(counts: Tensor) -> Tensor:
    """Contrast, correlation, energy, homogeneity and entropy of symmetric co-occurrences [N, L, L]: [N, 5].

    With p = counts / sum: Σ (i - j)² p; Σ (i - μ)(j - μ) p / σ² (1 where there is one grey level); Σ p²;
    Σ p / (1 + (i - j)²); -Σ p log2 p. Haralick 1973, features 2, 3, 1, 5 and 9 (there with another logarithm).
    """
    p = counts.double() / counts.sum(dim=(1, 2), keepdim=True)
    level = torch.arange(counts.shape[1], device=counts.device, dtype=torch.float64)
    apart = (level[:, None] - level) ** 2
    mean = (p.sum(dim=2) * level).sum(dim=1)
    variance = (p.sum(dim=2) * level**2).sum(dim=1) - mean**2
    product = (p * level[:, None] * level).sum(dim=(1, 2)) - mean**2
    correlation = torch.where(variance > _FLAT, product / variance.clamp(min=_FLAT), 1.0)
    sums = [p * apart, p**2, p / (1 + apart), -torch.xlogy(p, p) / np.log(2)]
    contrast, energy, homogeneity, entropy = (part.sum(dim=(1, 2)) for part in sums)
    return torch.stack([contrast, correlation, energy, homogeneity, entropy], dim=1)


def radiomics_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of two sets of `radiomics`, in standard deviations of the real set's features.

    Units differ between the features, so each is first divided by its standard deviation over the real images (what
    does not vary there is left as it is). As `fid`, it is biased upward by few images.

    Args:
        real: [N, F] features.
        fake: [M, F] features.

    Raises:
        DataError: as for `fid`.
    """
    scale = real.std(axis=0, dtype=np.float64)
    scale = np.where(scale > _FLAT, scale, 1.0)
    return fid(real / scale, fake / scale)


def _first_order(grey: Tensor, levels: Tensor) -> Tensor:
    """[N, 8] of grey values and their levels, both [N, *spatial]."""
    flat = grey.flatten(1).double()
    mean, spread = flat.mean(dim=1), flat.std(dim=1, correction=0)
    moments = [((flat - mean[:, None]) ** n).mean(dim=1) for n in (3, 4)]
    scaled = [
        torch.where(spread > _FLAT, moment / spread.clamp(min=_FLAT) ** n, 0.0)
        for n, moment in zip((3, 4), moments, strict=True)
    ]
    share = torch.nn.functional.one_hot(levels.flatten(1), LEVELS).double().mean(dim=1)
    entropy = -torch.xlogy(share, share).sum(dim=1) / np.log(2)
    return torch.stack([mean, spread, *scaled, *_percentiles(flat, 0.1, 0.5, 0.9), entropy], dim=1)


def _gradients(grey: Tensor) -> Tensor:
    """[N, 3] of the gradient's magnitude; central differences inside, one-sided ones at the border."""
    slopes = torch.gradient(grey, dim=list(range(1, grey.ndim)))
    size = torch.stack(slopes).square().sum(dim=0).sqrt().flatten(1).double()
    return torch.stack([size.mean(dim=1), size.std(dim=1, correction=0), *_percentiles(size, 0.9)], dim=1)


def _percentiles(flat: Tensor, *shares: float) -> Tensor:
    """[shares, N]"""
    return torch.quantile(flat, torch.tensor(shares, dtype=flat.dtype, device=flat.device), dim=1)
