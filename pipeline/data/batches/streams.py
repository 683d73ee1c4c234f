"""Where batches come from: endless, class-balanced or as frequent as they are, with a position that can be saved."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import DataError
from pipeline.core.threads import available_memory_mib
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling

UNLABELLED = -1
DEVICE_SHARE = 0.25
"""Of a GPU's free memory, for images; the rest is for the nets and what they compute."""
_PART = 1024


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
    """Images as they are stored, on the device or in a file's memory map: read and mapped to [-1, 1] batch by batch.

    Attributes:
        stored: [M, C, *spatial] in stored numbers, on the device or the CPU.
        label: [N] int64 on the device, -1 where unknown.
        masks: [M, 1, *spatial] uint8, where `stored` is.
        attributes: [N, A] float32 on the device, standardised.
        places: [N] int64, where `stored` is: which of its images each one is; None = all of them, in order.
        patient: [N] int64 on the CPU, a number for each patient; None = nobody asked.
        cell: [N] int64 on the device, where `label` is the site: the number of the cell of site and class, -1 where
            the class is unknown; None = `label` says it.
    """

    stored: Tensor
    label: Tensor
    scaling: Scaling
    masks: Tensor | None = None
    attributes: Tensor | None = None
    places: Tensor | None = None
    patient: Tensor | None = None
    cell: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.label.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image: [C, *spatial]."""
        return tuple(self.stored.shape[1:])

    def batch(self, rows: Tensor) -> Batch:
        """The images numbered `rows` [B] (of N), on the device."""
        places = rows.to(self.stored.device)
        places = places if self.places is None else self.places[places]
        own = rows.to(self.device)
        return Batch(
            images=self.scaling.to_model(self._read(self.stored, places)),
            label=self.label[own],
            mask=None if self.masks is None else self._read(self.masks, places).float(),
            attributes=None if self.attributes is None else self.attributes[own],
        )

    def _read(self, stored: Tensor, places: Tensor) -> Tensor:
        found = stored.index_select(0, places)  # copies whole images; indexing would copy number by number
        if found.device == self.device:
            return found
        return (
            found.pin_memory().to(self.device, non_blocking=True)
            if self.device.type == "cuda"
            else found.to(self.device)
        )

    def part(self, rows: Tensor) -> StoredImages:
        """Only the images numbered `rows`, in their order; nothing is copied but what is known of them."""
        own, places = rows.to(self.device), rows.to(self.stored.device)
        return replace(
            self,
            label=self.label[own],
            attributes=None if self.attributes is None else self.attributes[own],
            places=places if self.places is None else self.places[places],
            patient=None if self.patient is None else self.patient[rows.cpu()],
            cell=None if self.cell is None else self.cell[own],
        )

    def of_classes(self, numbers: Sequence[int]) -> StoredImages:
        """Only the images whose label is among `numbers`."""
        return self.part(torch.nonzero(torch.isin(self.label.cpu(), torch.tensor(list(numbers)))).squeeze(1))

    def unlabelled(self) -> StoredImages:
        """All images, their labels hidden: what has a label is an image like the others."""
        return replace(self, label=torch.full_like(self.label, UNLABELLED))


def stored_images(
    dataset: DataSet, rows: np.ndarray, classes: Sequence[str], attributes: Sequence[str], device: str
) -> StoredImages:
    """The images at `rows` with their masks; the attributes are standardised over the labelled ones.

    Raises:
        DataError: a label is not among `classes`, or an attribute is not a number for every labelled image.
    """
    labelled = (dataset.manifest["label"].iloc[rows] != "").to_numpy(copy=True)
    label = torch.full((len(rows),), UNLABELLED)
    label[torch.from_numpy(labelled)] = dataset.labels(rows[labelled], classes)
    images = images_at(dataset, rows, label, device, with_masks=True)
    return replace(images, attributes=_attributes(dataset, rows, labelled, attributes, device))


def images_at(
    dataset: DataSet, rows: np.ndarray, label: Tensor, device: str, *, with_masks: bool = False
) -> StoredImages:
    """The images at `rows` under the labels [len(rows)] of the caller, from where they are read quickest.

    On a CPU that is the data set's memory map: it costs no memory that the system could not take back, and reading it
    is as quick as reading a copy. To another device they are copied if they take at most `DEVICE_SHARE` of its free
    memory, and else batch by batch.
    """
    maps = [dataset.images, *([dataset.masks] if with_masks and dataset.masks is not None else [])]
    stored, places = [_mapped(array) for array in maps], torch.from_numpy(np.array(rows, dtype=np.int64))
    size = len(rows) * sum(array.nbytes // len(array) for array in maps)
    fits = device != "cpu" and size <= DEVICE_SHARE * _free_bytes(device)
    images, masks = [*([_copied(one, places, device) for one in stored] if fits else stored), None][:2]
    assert images is not None
    return StoredImages(images, label.to(device), dataset.scaling, masks, places=None if fits else places)


def _mapped(array: np.ndarray) -> Tensor:
    """The array's own memory as a tensor, which nobody writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _copied(stored: Tensor, places: Tensor, device: str) -> Tensor:
    """A copy on the device, made in parts."""
    copy = torch.empty((len(places), *stored.shape[1:]), dtype=stored.dtype, device=device)
    for own, part in zip(copy.split(_PART), places.split(_PART), strict=True):
        own.copy_(stored.index_select(0, part))
    return copy


def _free_bytes(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory_mib() * 2**20


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


class BatchStream(Protocol):
    """Where the batches of a training come from.

    Attributes:
        images: those that batches are made of.
        batch_size: images a batch, over all processes; of random batches the expected number.
    """

    images: StoredImages
    batch_size: int

    def next(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Stream:
    """Batches without replacement until the images, or with `balanced` those of a class, are used up.

    Args:
        images: the classes are those that occur in their labels.
        batch_size: images a batch, over all processes.
        seed: of the order in which images come.
        rank, world: this process's number, and how many there are; each gets its part of every batch.
        balanced: classes come in turn, so that their numbers differ by at most one; else images come as one shuffled
            pack, so that classes are as frequent as they are.
        groups: [N] numbers of what comes in turn instead of the classes, such as cells of site and class.
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
        groups: Tensor | None = None,
    ) -> None:
        self.images, self.batch_size = images, batch_size
        self._own = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._random = torch.Generator().manual_seed(seed)
        turns = images.label.cpu() if balanced else torch.zeros(len(images.label))
        turns = turns if groups is None else groups
        self._members = [torch.nonzero(turns == number).squeeze(1) for number in turns.unique().tolist()]
        self._order = [self._shuffled(members) for members in self._members]
        self._position = [0] * len(self._members)
        self._turn = 0

    def next(self) -> Batch:
        """The next batch."""
        return self.images.batch(self.next_rows())

    def next_rows(self) -> Tensor:
        """Which images the next batch is made of, [batch_size], on the CPU."""
        rows = [self._next_row() for _ in range(self.batch_size)][self._own]
        return torch.tensor(rows)

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
