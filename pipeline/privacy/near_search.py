"""Which known image is nearest to each of many? All pairs are looked at, or likely ones where they are too many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.core.compute import Hardware
from pipeline.data.batches.dataset import DataSet
from pipeline.measures.coverage import pairwise_distances
from pipeline.privacy.attack import Images
from pipeline.privacy.likeness_net import embedded, fit_likeness_net
from pipeline.privacy.registered import averaged_down, products_a_pair, registered_candidates, registered_distances

EXACT_WORK = 1e13
"""Up to so many products of voxels all pairs are looked at: about five minutes of one core. 10,000 images of 32 x 32
pixels among 10,000 are within it, 10,000 volumes of 16 x 16 x 16 voxels are not."""
CANDIDATES = 32
"""Of an image, among which its nearest known one is looked for where there are more pairs."""
_FEW_CANDIDATES = 0.02
"""They are so large a share of the known images where that is more."""
_VALUES = 2**24
"""Voxels of known images that are held at a time."""
_BLOCK = 512


@dataclass(frozen=True)
class Nearest:
    """The known image nearest to each of some images.

    Attributes:
        distance: [N], in units of the median distance of held-out images to the known image nearest to them.
        which: [N] places among the known images.
    """

    distance: np.ndarray
    which: np.ndarray


class NearSearch:
    """Finds the image nearest to each of some: among known ones, or among others by the same measure.

    The smaller of two distances: that of plain pixels, which noise and blur change little, and that of registered ones,
    which flips, small shifts and contrast do not change (`registered_distances`). Of each, 1 is the median distance of
    held-out images to the known image nearest to them.

    Where all pairs would take more than `exact_work` products, a net learns on the known images alone which images are
    alike (`likeness_net`), and an image is compared with those whose embeddings are nearest to its own. A distance may
    then be too large, where the nearest one is not among these, and never too small.

    Attributes:
        usual: the known image nearest to each held-out one.
    """

    def __init__(
        self,
        known: Images,
        held_out: Images,
        num_shown: int,
        hardware: Hardware,
        seed: int,
        exact_work: float = EXACT_WORK,
    ) -> None:
        """`num_shown`: of the images that will be looked at."""
        work = (num_shown + len(held_out)) * len(known) * products_a_pair(known.dataset.images.shape[1:])
        self._known, self._device = known, hardware.device
        self._net = None
        if work > exact_work:
            self._net = fit_likeness_net(_grids(known, hardware.device), hardware, seed)
        usual = self._among(held_out, known)
        self._units = [float(np.median(one.distance)) or 1.0 for one in usual]
        self.usual = _nearer(usual, self._units)

    def among_known(self, shown: Images) -> Nearest:
        return self.among_others(shown, self._known)

    def among_others(self, shown: Images, others: Images) -> Nearest:
        """The image of `others` nearest to each, in the unit of the known ones."""
        return _nearer(self._among(shown, others), self._units)

    def _among(self, shown: Images, others: Images) -> tuple[Nearest, Nearest]:
        if self._net is None:
            return _among_all(shown, others, self._device)
        grids = _grids(others, self._device)
        memory = embedded(self._net, [grids], self._device)
        return _among_likely(shown, others, grids, embedded(self._net, shown, self._device), memory, self._device)


def _nearer(found: Sequence[Nearest], usual: Sequence[float]) -> Nearest:
    plain, registered = (one.distance / unit for one, unit in zip(found, usual, strict=True))
    which = np.where(plain < registered, found[0].which, found[1].which)
    return Nearest(np.minimum(plain, registered), which)


def plain_distances(query: DataSet, query_rows: np.ndarray, real: DataSet, rows: np.ndarray) -> np.ndarray:
    """Root mean square difference of images in [-1, 1], [queries, images]."""
    left = query.tensor(query_rows).flatten(1).numpy()
    parts = np.array_split(rows, parts_of(len(rows), real))
    return np.concatenate([pairwise_distances(left, real.tensor(part).flatten(1).numpy()) for part in parts], axis=1)


def parts_of(number: int, dataset: DataSet) -> int:
    """In how many parts so many images are held one after the other."""
    return max(1, number * int(np.prod(dataset.images.shape[1:])) // _VALUES)


def _grids(images: Images, device: str) -> Tensor:
    """[N, C, *grid], averaged down."""
    return torch.cat([averaged_down(block.to(device)).cpu() for block in images])


def _among_all(images: Images, known: Images, device: str) -> tuple[Nearest, Nearest]:
    """By plain pixels, and by registered ones, each in its own unit."""
    plain, registered = [], []
    for part in _blocks(images, max(1, _VALUES // len(known))):
        plain.append(plain_distances(part.dataset, part.rows, known.dataset, known.rows))
        registered.append(registered_distances(part, known, device))
    return _joined(plain), _joined(registered)


def _among_likely(
    images: Images, known: Images, grids: Tensor, own: Tensor, memory: Tensor, device: str
) -> tuple[Nearest, Nearest]:
    """The same; plain distances of averaged-down images choose the one candidate that is compared in full."""
    number = min(len(known), max(CANDIDATES, round(_FEW_CANDIDATES * len(known))))
    plain, registered, start = [], [], 0
    for part in _blocks(images, _BLOCK):
        mine = _grids(part, device)
        likely = (own[start : start + len(mine)] @ memory.T).topk(number, dim=1).indices
        start += len(mine)
        apart = torch.stack([(mine - grids[one]).square().flatten(1).mean(dim=1) for one in likely.T], dim=1)
        at = likely.gather(1, apart.argmin(dim=1, keepdim=True))[:, 0].numpy()
        error = part.dataset.tensor(part.rows) - known.dataset.tensor(known.rows[at])
        plain.append(Nearest(error.square().flatten(1).mean(dim=1).sqrt().numpy(), at))
        moved = registered_candidates(mine, grids, likely.numpy(), device)
        best = moved.argmin(axis=1)
        registered.append(Nearest(moved.min(axis=1), likely.numpy()[np.arange(len(best)), best]))
    return _together(plain), _together(registered)


def _blocks(images: Images, size: int) -> Iterator[Images]:
    for start in range(0, len(images), size):
        yield Images(images.dataset, images.rows[start : start + size])


def _joined(distances: Sequence[np.ndarray]) -> Nearest:
    return _together([Nearest(one.min(axis=1), one.argmin(axis=1)) for one in distances])


def _together(parts: Sequence[Nearest]) -> Nearest:
    return Nearest(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("distance", "which")))
