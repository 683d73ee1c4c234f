"""Where batches come from: endless, class-balanced or as frequent as they are, with a position that can be saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import DataError
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling

UNLABELLED = -1


@dataclass(frozen=True)
class Batch:
    """Images [B, C, *spatial] in [-1, 1] with what is known of them.

    Attributes:
        label: [B] int64, -1 where unknown.
        mask: [B, 1, *spatial] of 0 and 1.
        attributes: [B, A], standardised.
    """

    images: Tensor
    label: Tensor
    mask: Tensor | None = None
    attributes: Tensor | None = None


@dataclass(frozen=True)
class StoredImages:
    """Images on the device as they are stored; they are mapped to [-1, 1] batch by batch.

    Attributes:
        stored: [N, C, *spatial] in stored numbers.
        label: [N] int64, -1 where unknown.
        masks: [N, 1, *spatial] uint8.
        attributes: [N, A] float32, standardised.
    """

    stored: Tensor
    label: Tensor
    scaling: Scaling
    masks: Tensor | None = None
    attributes: Tensor | None = None

    def batch(self, rows: Tensor) -> Batch:
        return Batch(
            images=self.scaling.to_model(self.stored[rows]),
            label=self.label[rows],
            mask=None if self.masks is None else self.masks[rows].float(),
            attributes=None if self.attributes is None else self.attributes[rows],
        )

    def of_classes(self, numbers: Sequence[int]) -> StoredImages:
        """Only the images whose label is among `numbers`."""
        keep = torch.isin(self.label, torch.tensor(list(numbers), device=self.label.device))
        return StoredImages(
            stored=self.stored[keep],
            label=self.label[keep],
            scaling=self.scaling,
            masks=None if self.masks is None else self.masks[keep],
            attributes=None if self.attributes is None else self.attributes[keep],
        )

    def unlabelled(self) -> StoredImages:
        """All images, their labels hidden: what has a label is an image like the others."""
        return replace(self, label=torch.full_like(self.label, UNLABELLED))


def stored_images(
    dataset: DataSet, rows: np.ndarray, classes: Sequence[str], attributes: Sequence[str], device: str
) -> StoredImages:
    """The images at `rows` on the device; the attributes are standardised over the labelled ones.

    Raises:
        DataError: a label is not among `classes`, or an attribute is not a number for every labelled image.
    """
    labelled = (dataset.manifest["label"].iloc[rows] != "").to_numpy(copy=True)
    label = torch.full((len(rows),), UNLABELLED)
    label[torch.from_numpy(labelled)] = dataset.labels(rows[labelled], classes)
    masks = dataset.masks
    return StoredImages(
        stored=torch.from_numpy(np.ascontiguousarray(dataset.images[rows])).to(device),
        label=label.to(device),
        scaling=dataset.scaling,
        masks=None if masks is None else torch.from_numpy(np.ascontiguousarray(masks[rows])).to(device),
        attributes=_attributes(dataset, rows, labelled, attributes, device),
    )


def _attributes(
    dataset: DataSet, rows: np.ndarray, labelled: np.ndarray, names: Sequence[str], device: str
) -> Tensor | None:
    if not names:
        return None
    values = dataset.numbers(rows, names)
    if not np.isfinite(values[labelled]).all():
        raise DataError(f"gan.attributes: {', '.join(names)} must be a number for every labelled training image.")
    centre, spread = values[labelled].mean(axis=0), values[labelled].std(axis=0)
    standard = (values - centre) / np.maximum(spread, 1e-6)
    return torch.from_numpy(np.nan_to_num(standard).astype(np.float32)).to(device)


class Stream:
    """Batches without replacement until the images, or with `balanced` those of a class, are used up.

    Args:
        images: the classes are those that occur in their labels.
        batch_size: images a batch, over all processes.
        seed: of the order in which images come.
        rank, world: this process's number, and how many there are; each gets its part of every batch.
        balanced: classes come in turn, so that their numbers differ by at most one; else images come as one shuffled
            pack, so that classes are as frequent as they are.
    """

    def __init__(
        self,
        images: StoredImages,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        *,
        balanced: bool = True,
    ) -> None:
        self.images, self.batch_size = images, batch_size
        self._own = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._random = torch.Generator().manual_seed(seed)
        label = images.label.cpu() if balanced else torch.zeros(len(images.label))
        self._members = [torch.nonzero(label == number).squeeze(1) for number in label.unique().tolist()]
        self._order = [self._shuffled(members) for members in self._members]
        self._position = [0] * len(self._members)
        self._turn = 0

    def next(self) -> Batch:
        """The next batch."""
        return self.images.batch(self.next_rows())

    def next_rows(self) -> Tensor:
        """Which images the next batch is made of, [batch_size]."""
        rows = [self._next_row() for _ in range(self.batch_size)][self._own]
        return torch.tensor(rows, device=self.images.label.device)

    def _next_row(self) -> int:
        which = self._turn
        self._turn = (which + 1) % len(self._members)
        if self._position[which] == len(self._order[which]):
            self._order[which], self._position[which] = self._shuffled(self._members[which]), 0
        self._position[which] += 1
        return self._order[which][self._position[which] - 1]

    def _shuffled(self, members: Tensor) -> list[int]:
        """As a list, of which single numbers are had at no cost."""
        rows: list[int] = members[torch.randperm(len(members), generator=self._random)].tolist()
        return rows

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": self._random.get_state(),
            "order": [torch.tensor(rows) for rows in self._order],
            "position": self._position,
            "turn": self._turn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._random.set_state(state["random"])
        self._order = [rows.tolist() for rows in state["order"]]
        self._position, self._turn = list(state["position"]), state["turn"]
