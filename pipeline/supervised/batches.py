"""Training batches mixed from several data sets, real and synthetic alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.streams import UNLABELLED, StoredImages, Stream, images_at


@dataclass(frozen=True)
class Share:
    """A data set's part in every training batch.

    Attributes:
        rows: positions of the images that may be seen; an image that is named twice comes twice as often.
        weight: parts of the batch, relative to the other shares.
        soft: [len(rows), num_classes] probabilities to be learnt; the data set's own labels are then never read, and
            images come as one shuffled pack.
        balanced: classes come in turn; else they are as frequent as they are.
        fades: its weight in the loss falls linearly from 1 to 0 over the training.
        groups: [len(rows)] numbers from 0 on, such as of cells of site and class: these come in turn, not the classes.
        beside: a data set and positions [len(rows)] in it: of each image another one, without a label, such as its
            translation. Only the one share of a batch may have them.
        domains: [len(rows)] numbers from 0 on of the images' sites.
        labelled: False = the images have no label, come as one shuffled pack and weigh nothing in the loss of classes.
    """

    dataset: DataSet
    rows: np.ndarray
    weight: float = 1.0
    soft: np.ndarray | None = None
    balanced: bool = True
    fades: bool = False
    groups: np.ndarray | None = None
    beside: tuple[DataSet, np.ndarray] | None = None
    domains: np.ndarray | None = None
    labelled: bool = True


@dataclass(frozen=True)
class Mixed:
    """A batch: images [B, C, *spatial] in [-1, 1], targets [B, num_classes], weights in the loss [B], numbers of groups
    and of domains [B], -1 in shares without them, and the images beside them [B, C, *spatial], if there are any (for
    FixMatch, copies of those without a label)."""

    images: Tensor
    target: Tensor
    weight: Tensor
    group: Tensor
    domain: Tensor
    beside: Tensor | None = None

    def at(self, rows: Tensor) -> Mixed:
        """The images at `rows` alone, and what belongs to them."""
        beside = None if self.beside is None else self.beside[rows]
        target, weight, group, domain = (each[rows] for each in (self.target, self.weight, self.group, self.domain))
        return Mixed(self.images[rows], target, weight, group, domain, beside)


class Batches:
    """Endless batches of `batch_size` images, divided among shares by their weights.

    Args:
        seed: of the order in which each share's images come.
        first: number of the first share's order; phases of one training go on counting.
    """

    def __init__(
        self, shares: Sequence[Share], batch_size: int, classes: Sequence[str], device: str, seed: int, first: int = 0
    ) -> None:
        self.shares = shares
        self._targets: list[Tensor] = []
        self._streams: list[Stream] = []
        self._groups: list[Tensor] = []
        self._beside: StoredImages | None = None
        self._domains: list[Tensor] = []
        for number, (share, size) in enumerate(zip(shares, batch_sizes(batch_size, shares), strict=True), start=first):
            label = share_labels(share, classes)
            target = _target(share, label, len(classes))
            images = images_at(share.dataset, share.rows, label, device)
            order = derive_seed(seed, "order", number)
            groups = None if share.groups is None else torch.from_numpy(share.groups)
            self._streams.append(Stream(images, size, order, balanced=share.balanced, groups=groups))
            self._targets.append(target.to(device))
            if share.beside is not None:
                there, places = share.beside
                self._beside = images_at(there, places, torch.full_like(label, UNLABELLED), device)
            self._groups.append(_numbers(share.groups, label).to(device))
            self._domains.append(_numbers(share.domains, label).to(device))

    def next(self, progress: float = 0.0) -> Mixed:
        """The next batch.

        Args:
            progress: from 0 at the first step towards 1 after the last one.
        """
        parts = []
        known = zip(self.shares, self._streams, self._targets, self._groups, self._domains, strict=True)
        for share, stream, target, group, domain in known:
            rows = stream.next_rows()
            full = 1 - progress if share.fades else float(share.labelled)
            weight = torch.full((len(rows),), full, device=target.device)
            own = rows.to(target.device)
            parts.append(Mixed(stream.images.batch(rows).images, target[own], weight, group[own], domain[own]))
        if self._beside is not None:
            (only,) = parts
            return replace(only, beside=self._beside.batch(rows).images)
        return Mixed(
            torch.cat([part.images for part in parts]),
            torch.cat([part.target for part in parts]),
            torch.cat([part.weight for part in parts]),
            torch.cat([part.group for part in parts]),
            torch.cat([part.domain for part in parts]),
        )


def share_labels(share: Share, classes: Sequence[str]) -> Tensor:
    """Class numbers [len(rows)]; -1 for all where the share has soft labels or none."""
    if share.soft is not None or not share.labelled:
        return torch.full((len(share.rows),), UNLABELLED)
    return share.dataset.labels(share.rows, classes)


def _numbers(known: np.ndarray | None, label: Tensor) -> Tensor:
    return torch.full_like(label, -1) if known is None else torch.from_numpy(known)


def _target(share: Share, label: Tensor, num_classes: int) -> Tensor:
    if share.soft is not None:
        return torch.from_numpy(share.soft.astype(np.float32))
    if not share.labelled:
        return torch.zeros(len(label), num_classes)
    return torch.nn.functional.one_hot(label, num_classes).float()


def batch_sizes(batch_size: int, shares: Sequence[Share]) -> list[int]:
    """Divide a batch by the shares' weights; every share gets at least one image and the sum is `batch_size`."""
    total = sum(share.weight for share in shares)
    room = batch_size - len(shares) + 1
    sizes = [min(room, max(1, round(batch_size * share.weight / total))) for share in shares[1:]]
    return [batch_size - sum(sizes), *sizes]


def channels_last(images: Tensor) -> Tensor:
    """The images [B, C, *spatial] in channels-last order, in which the networks' weights lie.

    Of one channel torch takes either order for both, and convolutions then work in the other one: `.contiguous` would
    change nothing, and on a CPU a step of the small CNN in 2D takes a third longer.
    """
    layout = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
    return torch.empty_like(images, memory_format=layout).copy_(images)
