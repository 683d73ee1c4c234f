"""Distances of feature vectors to those of normal images."""

from __future__ import annotations

import torch
from torch import Tensor

_CELLS = 2**23
_PROJECTED = 64
_SPARE = 4
"""Candidates more than are asked for: whose rough distance was a little too large may be nearer."""


def nearest(vectors: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Euclidean distances [n, k] of `vectors` [n, D] to their k nearest in `bank` [m, D], ascending, and which.

    Candidates are found by matrix products, which lose digits where distances are small; theirs are then taken exactly.
    """
    k = min(k, len(bank))
    if not len(vectors):
        return vectors.new_empty(0, k), torch.empty(0, k, dtype=torch.int64)
    centre = bank.mean(dim=0)
    near = bank - centre
    squares = near.square().sum(dim=1)
    found = []
    for part in vectors.split(max(1, _CELLS // len(bank))):
        rough = torch.addmm(squares, part - centre, near.T, alpha=-2)
        candidates = rough.topk(min(k + _SPARE, len(bank)), largest=False).indices
        distances = torch.linalg.vector_norm(part[:, None] - bank[candidates], dim=2)
        exact = distances.topk(k, largest=False)
        found.append((exact.values, candidates.gather(1, exact.indices)))
    return torch.cat([values for values, _ in found]), torch.cat([which for _, which in found])


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
