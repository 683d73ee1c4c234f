"""How alike are two images once one of them is flipped, shifted a little, and brought to the other's grey levels?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.measures.ms_ssim import ssim

SIDES = {2: 32, 3: 16}
"""Images with longer sides are averaged down to these, by spatial dimensions."""
REACH = {2: 2, 3: 1}
"""Cells of these grids by which an image is shifted along each axis, both ways."""
_HELD = 2**24
"""Values of candidates that are held at a time."""


def averaged_down(images: Tensor) -> Tensor:
    """Images [B, C, *spatial] -> [B, C, *grid], each cell the mean of its voxels; no side is longer than SIDES."""
    longest = SIDES[images.ndim - 2]
    grid = tuple(min(side, longest) for side in images.shape[2:])
    if grid == tuple(images.shape[2:]):
        return images
    pool = F.adaptive_avg_pool2d if images.ndim == 4 else F.adaptive_avg_pool3d
    return pool(images, grid)  # type: ignore[arg-type]


def registered_distances(queries: Iterable[Tensor], references: Iterable[Tensor], device: str = "cpu") -> np.ndarray:
    """Distance of every query to every reference, the least over flips and small shifts of the query: [Q, R], 0 to 2.

    A reference is its middle, without a margin of REACH; a query is cut to as much at every shift, as it is and flipped
    along each axis. Both are taken less their mean and over their length, so that brightness and contrast do not
    matter: the distance is the square root of 2 - 2 r, for a correlation of r. A flat image is like nothing (r = 0).

    Args:
        queries, references: blocks of images [B, C, *spatial], all of one size.
    """
    asked = torch.cat([averaged_down(block.to(device)) for block in queries])
    known = torch.cat([_middle(averaged_down(block.to(device))) for block in references]).T
    best = torch.full((len(asked), known.shape[1]), -1.0, device=device)
    for moved in _moved(asked):
        torch.maximum(best, _normalised(moved) @ known, out=best)
    return np.asarray((2 - 2 * best.clamp(max=1.0)).sqrt().cpu().numpy())


def products_a_pair(shape: Sequence[int]) -> int:
    """Products of voxels that one pair of images [C, *spatial] takes."""
    grid = [min(side, SIDES[len(shape) - 1]) for side in shape[1:]]
    margins = _margins_of(grid)
    moves = (1 + len(grid)) * math.prod(2 * margin + 1 for margin in margins)
    return moves * shape[0] * math.prod(side - 2 * margin for side, margin in zip(grid, margins, strict=True))


def registered_candidates(
    queries: Tensor, references: Tensor, candidates: np.ndarray, device: str = "cpu"
) -> np.ndarray:
    """The same distances of each query to some references alone: [Q, K].

    Args:
        queries, references: images [Q or R, C, *grid], averaged down.
        candidates: [Q, K] numbers of references.
    """
    known, found = _middle(references.to(device)), np.empty(candidates.shape, dtype=np.float32)
    size = max(1, _HELD // (candidates.shape[1] * known.shape[1]))
    for start in range(0, len(queries), size):
        own = known[torch.from_numpy(candidates[start : start + size]).to(device)]
        best = torch.full(own.shape[:2], -1.0, device=device)
        for moved in _moved(queries[start : start + size].to(device)):
            torch.maximum(best, (own @ _normalised(moved)[:, :, None])[:, :, 0], out=best)
        found[start : start + size] = (2 - 2 * best.clamp(max=1.0)).sqrt().cpu().numpy()
    return found


def registered_ssim(images: Tensor, one: Tensor, two: Tensor) -> Tensor:
    """SSIM [P] of pairs of images, the first moved to where the two correlate best (`registered_distances`).

    Grey levels are those of `standardised`, so that brightness and contrast do not matter.

    Args:
        images: [B, C, *grid], averaged down.
        one, two: [P] numbers of images.
    """
    middle = _cut(images, _margins(images))
    moved = list(_moved(images))
    known = _normalised(middle).T
    best = torch.stack([(_normalised(every) @ known)[one, two] for every in moved]).argmax(dim=0)
    return ssim(standardised(torch.stack(moved)[best, one]), standardised(middle[two]))


def standardised(images: Tensor) -> Tensor:
    """Images less their mean, three of their standard deviations being 1; a flat one is 0."""
    flat = images.flatten(1)
    mean, spread = (one.reshape(-1, *[1] * (images.ndim - 1)) for one in (flat.mean(dim=1), flat.std(dim=1)))
    return ((images - mean) / (3 * spread.clamp(min=1e-4))).clamp(-1, 1)


def _margins(images: Tensor) -> list[int]:
    """Cells that are cut off each end of each axis; a short axis loses less."""
    return _margins_of(images.shape[2:])


def _margins_of(grid: Sequence[int]) -> list[int]:
    return [min(REACH[len(grid)], (side - 1) // 4) for side in grid]


def _cut(images: Tensor, starts: Iterable[int]) -> Tensor:
    sizes = [side - 2 * margin for side, margin in zip(images.shape[2:], _margins(images), strict=True)]
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True), start=2):
        images = images.narrow(axis, start, size)
    return images


def _middle(images: Tensor) -> Tensor:
    return _normalised(_cut(images, _margins(images)))


def _moved(images: Tensor) -> Iterator[Tensor]:
    """The images at every shift, as they are and flipped along each axis."""
    shifts = list(product(*(range(2 * margin + 1) for margin in _margins(images))))
    for axis in (None, *range(2, images.ndim)):
        seen = images if axis is None else images.flip(axis)
        for starts in shifts:
            yield _cut(seen, starts)


def _normalised(images: Tensor) -> Tensor:
    """[B, D]: less the mean, over the length; nothing of a flat image."""
    flat = images.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-4, flat / length.clamp(min=1e-4), 0.0)
