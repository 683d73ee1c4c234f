"""Distances of feature vectors to those of normal images."""

from __future__ import annotations

import torch
from torch import Tensor

_CELLS = 2**23
_PROJECTED = 64


def nearest(vectors: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Euclidean distances [n, k] of `vectors` [n, D] to their k nearest in `bank` [m, D], ascending, and which."""
    k = min(k, len(bank))
    parts = vectors.split(max(1, _CELLS // len(bank)))
    found = [
        torch.cdist(part, bank, compute_mode="donot_use_mm_for_euclid_dist").topk(k, largest=False) for part in parts
    ]
    if not found:
        return vectors.new_empty(0, k), torch.empty(0, k, dtype=torch.int64)
    return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])


def coreset(vectors: Tensor, size: int, seed: int) -> Tensor:
    """Numbers of `size` of the vectors [n, D] that lie as far apart as the greedy rule finds them: [size].

    Each next one is the vector that is farthest from those taken (Sener & Savarese, ICLR 2018). Distances are taken
    after a random projection, as in PatchCore (Roth et al., CVPR 2022): they change by some per cent at most.
    """
    random = torch.Generator().manual_seed(seed)
    dims = min(_PROJECTED, vectors.shape[1])
    projection = torch.randn(vectors.shape[1], dims, generator=random) / dims**0.5
    projected = vectors @ projection
    taken = [int(torch.randint(len(vectors), (1,), generator=random))]
    distance = (projected - projected[taken[0]]).square().sum(dim=1)
    while len(taken) < min(size, len(vectors)):
        taken.append(int(distance.argmax()))
        distance = torch.minimum(distance, (projected - projected[taken[-1]]).square().sum(dim=1))
    return torch.tensor(taken)


def shrunk_gaussian(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and whitening matrix [D, D] of vectors [n, D]: |(x - mean) @ whitening| is the Mahalanobis distance.

    The covariance is that of Ledoit & Wolf (J. Multivariate Anal. 2004), which has an inverse for few vectors too.
    """
    from sklearn.covariance import LedoitWolf

    values = vectors.double()
    found = LedoitWolf().fit(values.numpy())
    covariance = torch.from_numpy(found.covariance_)
    scale = covariance.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    covariance = covariance + 1e-9 * scale * torch.eye(len(covariance), dtype=torch.float64)
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    return values.mean(dim=0).float(), whitening.float()


def mahalanobis(vectors: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Distances [n] of vectors [n, D] from a Gaussian, as `shrunk_gaussian` gives it."""
    return torch.linalg.vector_norm((vectors - mean) @ whitening, dim=1)
