"""Intensity histograms, and how far two of them lie apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BINS = 256


def intensity_histograms(images: Tensor, bins: int = BINS) -> Tensor:
    """Shares of each image's voxels in `bins` equal parts of [-1, 1]: [N, bins], rows of sum 1, float32 on the CPU.

    Args:
        images: [N, C, *spatial] in [-1, 1]; a value outside counts in the last bin on its side.
    """
    level = ((images.flatten(1).float() + 1) * (bins / 2)).long().clamp(0, bins - 1)
    offset = torch.arange(len(images), device=images.device)[:, None] * bins
    counts = torch.bincount((level + offset).flatten(), minlength=len(images) * bins).cpu()
    return counts.reshape(-1, bins).float() / level.shape[1]


def wasserstein_1(one: np.ndarray, two: np.ndarray, width: float) -> float:
    """Earth mover's distance of two histograms [bins] of sum 1 whose bins are `width` wide, in `width`'s unit.

    The area between the two cumulative distributions (Vallender 1974). It is exact for values at the bins' centres.
    """
    return float(np.abs(np.cumsum(one - two)).sum() * width)


def jensen_shannon(one: np.ndarray, two: np.ndarray) -> float:
    """Jensen-Shannon divergence of two histograms [bins] of sum 1, in bits: from 0 (equal) to 1 (nothing shared).

    Lin, IEEE Transactions on Information Theory 37, 1991.
    """
    middle = (one + two) / 2
    return float(sum(_divergence(part, middle) for part in (one, two)) / 2)


def _divergence(part: np.ndarray, middle: np.ndarray) -> float:
    inside = part > 0
    return float((part[inside] * np.log2(part[inside] / middle[inside])).sum())
