"""Kernel distance between two sets of features: unbiased, so that small sets compare with large ones."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from pipeline.measures.blocks import on_device, products
from pipeline.measures.frechet import feature_sets

_BLOCK = 1024


def kid(
    real: np.ndarray,
    fake: np.ndarray,
    subset: int = 5000,
    seed: int = 0,
    alpha: float = 0.05,
    device: str = "cpu",
) -> tuple[float, float, float]:
    """Squared maximum mean discrepancy with the kernel (x·y / D + 1)³, unbiased, and its interval.

    Bińkowski et al., ICLR 2018. All pairs within disjoint random parts of at most `subset` images are used rather than
    random subsets that overlap: the expectation is the same, every image is in one part, and time grows linearly with
    the images. Sets of no more than `subset` images are one part. A part has at least 3 images of either set, if need
    be with more of the other. The expectation is 0 for two sets from one distribution, so half of such figures are
    negative.

    The interval is by the jackknife: each image of either set is left out once, exactly, from the sums of its kernel
    values. The variances of the two sets add; the quantile is Student's with min(N, M) - parts degrees of freedom. The
    jackknife variance of a U-statistic is never too small in expectation (Efron & Stein, Annals of Statistics 9, 1981);
    where both sets come from one distribution the interval is up to √2 too wide. It covers which images were drawn,
    taken to be independent: not the GAN's seed, and not several images of one patient (then it is too narrow).

    Args:
        real: [N, D] features.
        fake: [M, D] features.
        seed: of the parts.
        alpha: 1 - the share of repetitions that the interval covers.
        device: that computes, in float64.

    Returns:
        The distance and the ends of its interval.

    Raises:
        DataError: where a set has fewer than 3 rows, the widths differ, or a feature is not finite.
    """
    real, fake = feature_sets(real, fake, fewest=3)
    number = min(-(-max(len(real), len(fake)) // subset), min(len(real), len(fake)) // 3)
    random = np.random.default_rng(seed)
    parts = [np.array_split(random.permutation(len(each)), number) for each in (real, fake)]
    found = [_with_variance(real[np.sort(one)], fake[np.sort(two)], device) for one, two in zip(*parts, strict=True)]
    distance, variance = (float(np.mean(values)) for values in zip(*found, strict=True))
    margin = float((variance / number) ** 0.5 * stdtrit(min(len(real), len(fake)) - number, 1 - alpha / 2))
    return distance, distance - margin, distance + margin


def _with_variance(real: np.ndarray, fake: np.ndarray, device: str) -> tuple[float, float]:
    """The distance and its jackknife variance."""
    within_real, within_fake, to_fake, to_real = _sums(real, fake, device)
    n, m = len(real), len(fake)
    cross = to_fake.sum()
    without_real = (
        (within_real.sum() - 2 * within_real) / ((n - 1) * (n - 2))
        + within_fake.sum() / (m * (m - 1))
        - 2 * (cross - to_fake) / ((n - 1) * m)
    )
    without_fake = (
        within_real.sum() / (n * (n - 1))
        + (within_fake.sum() - 2 * within_fake) / ((m - 1) * (m - 2))
        - 2 * (cross - to_real) / (n * (m - 1))
    )
    variance = (n - 1) * np.var(without_real) + (m - 1) * np.var(without_fake)
    return float(_mmd(within_real, within_fake, to_fake, to_real)), float(variance)


def _mmd(within_real: np.ndarray, within_fake: np.ndarray, to_fake: np.ndarray, to_real: np.ndarray) -> np.floating:
    n, m = len(within_real), len(within_fake)
    return within_real.sum() / (n * (n - 1)) + within_fake.sum() / (m * (m - 1)) - 2 * to_fake.sum() / (n * m)


def _sums(real: np.ndarray, fake: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each image's kernel values added up: real to other real [N], fake to other fake [M], real to fake [N], fake to
    real [M]."""
    to_real, to_fake = torch.zeros(len(fake), dtype=torch.float64), torch.zeros(len(real), dtype=torch.float64)
    for rows, block in products(real, fake, _BLOCK, device):
        kernel = _kernel(block, real.shape[1])
        to_fake[rows] = kernel.sum(dim=1).cpu()
        to_real += kernel.sum(dim=0).cpu()
    return _sums_within(real, device), _sums_within(fake, device), to_fake.numpy(), to_real.numpy()


def _sums_within(features: np.ndarray, device: str) -> np.ndarray:
    width = features.shape[1]
    sums = [_kernel(block, width).sum(dim=1).cpu() for _, block in products(features, features, _BLOCK, device)]
    itself = _kernel((on_device(features) ** 2).sum(dim=1), width)
    return np.asarray((torch.cat(sums) - itself).numpy())


def _kernel(products_: Tensor, width: int) -> Tensor:
    return (products_ / width + 1) ** 3
