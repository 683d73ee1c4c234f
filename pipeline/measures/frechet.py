"""Fréchet distance between two sets of features, and how far it moves with the images that happened to be drawn."""

from __future__ import annotations

import numpy as np

from pipeline.core.errors import DataError
from pipeline.measures.subsampling import margins

_BLOCK = 4096


def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance between the Gaussians fitted to two sets of features.

    |mean difference|² + tr C1 + tr C2 - 2 tr (C1 C2)^½, with covariances C over N - 1 (Heusel et al., NeurIPS 2017).
    With centred features X1 and X2, tr (C1 C2)^½ is the sum of the singular values of X1 X2ᵀ / √((N-1)(M-1)), an
    [N, M] matrix; no root of a matrix is taken, and fewer images than features are no difficulty.

    The distance is biased upward, the more so the fewer the images: compare only figures from equal numbers of images.
    Time grows linearly with the images once there are more than features; beside the sets, [D, D] and a block is held.

    Args:
        real: [N, D] features.
        fake: [M, D] features.

    Raises:
        DataError: where a set has fewer than 2 rows, the widths differ, or a feature is not finite.
    """
    real, fake = feature_sets(real, fake, fewest=2)
    return _distance(real, fake)


def fid_interval(
    real: np.ndarray,
    fake: np.ndarray,
    draws: int = 40,
    seed: int = 0,
    alpha: float = 0.05,
    most: int | None = None,
) -> tuple[float, float]:
    """Interval for the `fid` to be expected of sets of these sizes, by random halves of both sets.

    A random half, drawn without replacement, repeats no image; it shifts the mean (fewer images), but the mean is not
    used: `margins` says what is. The interval is the distance plus and minus a t quantile (draws - 1 degrees of
    freedom) of the standard deviation over halves, cut off at 0. In simulations its width is right within a tenth
    where the two distributions differ; where they are the same it is up to 2.5 times too wide.

    It covers which images were drawn, taken to be independent. It does not cover the GAN's seed, several images of one
    patient (then it is too narrow) or the upward bias of `fid`.

    Cost: `draws` singular value decompositions of half the smaller set (at most of D): about 3 s for N = M = 1000.

    Args:
        real: [N, D] features.
        fake: [M, D] features.
        draws: random halves.
        seed: of the draws.
        alpha: 1 - the share of repetitions that the interval covers.
        most: images of the larger set in a draw, at most, instead of half of them.

    Raises:
        DataError: as for `fid`, where a set has fewer than 4 rows.
    """
    real, fake = feature_sets(real, fake, fewest=4)
    sizes = (len(real), len(fake))
    margin = margins(
        lambda one, two: [_distance(real[one], fake[two])], sizes, draws=draws, seed=seed, alpha=alpha, most=most
    )[0]
    distance = _distance(real, fake)
    return max(distance - float(margin), 0.0), distance + float(margin)


def feature_sets(real: np.ndarray, fake: np.ndarray, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    """Both sets, checked; numbers keep their precision, and what reads them computes in float64, block by block.

    Raises:
        DataError: where a set has fewer than `fewest` rows, the widths differ, or a feature is not finite.
    """
    for name, features in (("real", real), ("synthetic", fake)):
        if features.ndim != 2 or len(features) < fewest:
            raise DataError(
                f"the {name} set has features of shape {list(features.shape)}; "
                f"this measure needs [images, features] with at least {fewest} images"
            )
        if not np.isfinite(features).all():
            raise DataError(f"the {name} set has features that are not finite; look for NaN in its images")
    if real.shape[1] != fake.shape[1]:
        raise DataError(
            f"real images have {real.shape[1]} features and synthetic ones {fake.shape[1]}; use one extractor for both"
        )
    return real, fake


def _distance(real: np.ndarray, fake: np.ndarray) -> float:
    one, two = _Gaussian(real), _Gaussian(fake)
    shift = float(((one.mean - two.mean) ** 2).sum())
    root = float(np.linalg.svd(one.root @ two.root.T, compute_uv=False).sum())
    return max(shift + float((one.root**2).sum()) + float((two.root**2).sum()) - 2 * root, 0.0)


class _Gaussian:
    """Mean [D] and a `root` with rootᵀ root = covariance, [N or D, D]: tr (C1 C2)^½ = sum of singular values of r1 r2ᵀ.

    With more rows than columns the root is the R of a QR decomposition that takes a block of rows at a time (Demmel et
    al., SIAM J. Sci. Comput. 34, 2012): no covariance is squared, and no second copy of the features is held.
    """

    def __init__(self, features: np.ndarray) -> None:
        self.mean = features.mean(axis=0, dtype=np.float64)
        width = features.shape[1]
        step = len(features) if len(features) <= width else max(_BLOCK, width)
        root = np.zeros((0, width))
        for start in range(0, len(features), step):
            root = np.concatenate([root, features[start : start + step] - self.mean])
            if len(root) > width:
                root = np.asarray(np.linalg.qr(root, mode="r"))
        self.root = root / np.sqrt(len(features) - 1)
