"""Multi-scale structural similarity, for images of any size, and how alike the images of one set are."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.special import stdtrit
from torch import Tensor

from pipeline.core.errors import DataError

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_C1, _C2 = 0.01**2, 0.03**2
_BATCH_VALUES = 2**19


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM of each pair of images: 1 for two equal ones. Wang, Simoncelli & Bovik, Asilomar 2003.

    The original (5 scales, Gaussian window of 11 and σ 1.5) needs sides of at least 176. Where an image is smaller,
    `scales_and_window` says how many scales and which window are used; the first weights are kept and brought to
    sum 1, and σ shrinks with the window. Images are taken to [0, 1] first, since the luminance term means nothing for
    values of both signs. Figures from different image sizes do not compare. A scale below 0 counts as 0.

    The values are those of MONAI's `compute_ms_ssim` with these settings; the window is applied along one axis after
    the other, which is 5 (32³) to 17 times (64³) faster in 3D.

    Args:
        x: [N, C, *spatial] in [-1, 1], 2D or 3D.
        y: as x.

    Returns:
        [N], without a graph.

    Raises:
        DataError: where the shapes differ or a side is below 3.
    """
    if x.shape != y.shape:
        raise DataError(f"MS-SSIM compares images of one shape, not {list(x.shape)} with {list(y.shape)}")
    scales, window = scales_and_window(min(x.shape[2:]))
    weights = torch.tensor(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
    both = (torch.stack([x, y]).detach().float() + 1) / 2
    similarity = torch.ones(len(x))
    for scale, weight in enumerate(weights):
        if scale:
            both = pool(both.flatten(0, 1), 2).unflatten(0, (2, -1))
        luminance, contrast = _luminance_and_contrast(both[0], both[1], window)
        term = luminance * contrast if scale == scales - 1 else contrast
        similarity *= term.flatten(1).mean(dim=1).clamp(min=0) ** weight
    return similarity


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of each pair of images: 1 for two equal ones. Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 13 (2004).

    One scale, with the window of `scales_and_window`; images are taken to [0, 1] first. Arguments, values and errors
    are those of `ms_ssim`, but that a value may lie below 0.
    """
    if x.shape != y.shape:
        raise DataError(f"SSIM compares images of one shape, not {list(x.shape)} with {list(y.shape)}")
    window = scales_and_window(min(x.shape[2:]))[1]
    luminance, contrast = _luminance_and_contrast((x.float() + 1) / 2, (y.float() + 1) / 2, window)
    return (luminance * contrast).flatten(1).mean(dim=1)


def scales_and_window(side: int) -> tuple[int, int]:
    """How many scales, and the window's width, for images whose shortest side is `side`.

    The widest window of 11, 7, 5 and 3 that leaves three scales, then as many scales up to five as hold the window;
    below 12 it is the window of 3 with the one or two scales that hold it.

    Raises:
        DataError: where not even a window of 3 fits.
    """
    if side < 3:
        raise DataError(f"MS-SSIM needs sides of at least 3, not {side}; give larger images")
    window = next((width for width in (11, 7, 5) if side // 4 >= width), 3)
    return min(len(WEIGHTS), (side // window).bit_length()), window


def _luminance_and_contrast(x: Tensor, y: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The two factors of SSIM at every place where the window fits: two [N, C, *fewer]. Values in [0, 1]."""
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _smoothed(torch.stack([x, y, x * x, y * y, x * y]), window)
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance, (2 * (mean_xy - mean_x * mean_y) + _C2) / (variances + _C2)


def _smoothed(images: Tensor, window: int) -> Tensor:
    """Images [K, N, C, *spatial] under a Gaussian window, only where it fits: one band matrix an axis."""
    offsets = torch.arange(window) - (window - 1) / 2
    gauss = torch.exp(-((offsets / (1.5 * window / 11)) ** 2) / 2)
    gauss /= gauss.sum()
    for axis in range(3, images.ndim):
        places = images.shape[axis] - window + 1
        band = torch.zeros(places, images.shape[axis], device=images.device)
        for step in range(window):
            band.diagonal(step).fill_(gauss[step])
        images = torch.tensordot(images, band, dims=([axis], [1])).movedim(-1, axis)
    return images


def pairwise_ms_ssim(images: Tensor, pairs: int, seed: int) -> float:
    """Mean MS-SSIM over random pairs of different images of one set: 1 where all are alike (collapse).

    Odena, Olah & Shlens, ICML 2017. All pairs are taken where there are no more than `pairs`.

    Args:
        images: [N, C, *spatial] in [-1, 1].
        pairs: how many pairs.
        seed: of the draw.

    Raises:
        DataError: where there are fewer than 2 images, or as for `ms_ssim`.
    """
    return float(_of_pairs(images, *_pairs(len(images), pairs, seed)).mean())


def pairwise_ms_ssim_interval(images: Tensor, pairs: int, seed: int, alpha: float = 0.05) -> tuple[float, float, float]:
    """`pairwise_ms_ssim` with its interval, by the jackknife: each image is left out once, with all its pairs.

    The quantile is Student's with one degree of freedom less than there are images in the pairs. It covers which
    images were drawn, taken to be independent: not the GAN's seed, and not several images of one patient.

    Returns:
        The mean and the ends of its interval; NaN for the ends where there are fewer than 3 images.

    Raises:
        DataError: as for `pairwise_ms_ssim`.
    """
    first, second = _pairs(len(images), pairs, seed)
    values = _of_pairs(images, first, second)
    sums, counts = torch.zeros(len(images), dtype=torch.float64), torch.zeros(len(images), dtype=torch.float64)
    for side in (first, second):
        sums.index_add_(0, side, values)
        counts.index_add_(0, side, torch.ones_like(values))
    paired = (counts > 0) & (counts < len(values))
    without = (values.sum() - sums[paired]) / (len(values) - counts[paired])
    number, mean = int(paired.sum()), float(values.mean())
    if number < 3:
        return mean, float("nan"), float("nan")
    error = float((number - 1) ** 0.5 * without.std(correction=0))
    margin = error * float(stdtrit(number - 1, 1 - alpha / 2))
    return mean, max(mean - margin, 0.0), min(mean + margin, 1.0)


def _of_pairs(images: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """[pairs], float64."""
    batch = max(1, _BATCH_VALUES // images[0].numel())
    parts = [
        ms_ssim(images[one], images[two]) for one, two in zip(first.split(batch), second.split(batch), strict=True)
    ]
    return torch.cat(parts).double()


def _pairs(count: int, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    if count < 2:
        raise DataError(f"a set of {count} image(s) has no pairs; make at least 2")
    if count * (count - 1) // 2 <= pairs:
        first, second = torch.triu_indices(count, count, offset=1)
        return first, second
    random = np.random.default_rng(seed)
    one = random.integers(count, size=pairs)
    two = (one + random.integers(1, count, size=pairs)) % count
    return torch.from_numpy(one), torch.from_numpy(two)
