"""Random batches for differential privacy: every patient is drawn by himself, and shows one of his images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.core.errors import DataError
from pipeline.core.patients import known_patients, patient_units
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.streams import Batch, StoredImages


@dataclass(frozen=True, kw_only=True)
class PatientBatch(Batch):
    """One image of each patient who was drawn; there may be none.

    Attributes:
        asked: [batch_size] int64, classes drawn with equal chances, which have nothing to do with the patients.
    """

    asked: Tensor


class PatientStream:
    """Poisson sampling: each patient is in a batch with the same chance, whoever else is in it.

    An image of a patient who has several is drawn anew each time. Whatever a patient has, at most one image of his is
    in a batch, so that one clipped gradient is all that he can add to a sum.

    Args:
        images: with the patients' numbers.
        batch_size: expected number of patients in a batch, below the number of patients.
        num_classes: that `asked` is drawn from.
        random: on the CPU, of a seed that nobody knows: who knows who was drawn is promised less.
    """

    def __init__(self, images: StoredImages, batch_size: int, num_classes: int, random: torch.Generator) -> None:
        assert images.patient is not None, "patients must be known by number"
        self.images, self.batch_size, self.num_classes, self._random = images, batch_size, num_classes, random
        self._order = torch.argsort(images.patient, stable=True)
        _, self._count = torch.unique(images.patient, return_counts=True)
        self._first = torch.cumsum(self._count, 0) - self._count
        self.patients = len(self._count)

    @property
    def rate(self) -> float:
        """The chance with which a patient is in a batch."""
        return self.batch_size / self.patients

    def next(self) -> PatientBatch:
        """The next batch."""
        batch = self.images.batch(self.next_rows())
        asked = torch.randint(0, self.num_classes, (self.batch_size,), generator=self._random)
        return PatientBatch(batch.images, batch.label, asked=asked.to(self.images.device))

    def next_rows(self) -> Tensor:
        """Which images the next batch is made of, on the CPU: one of each patient drawn."""
        chance, which = torch.rand((2, self.patients), generator=self._random, dtype=torch.float64)
        drawn = torch.nonzero(chance < self.rate).squeeze(1)
        one = (which[drawn] * self._count[drawn]).long()
        return self._order[self._first[drawn] + one]

    def state_dict(self) -> dict[str, Any]:
        return {"random": self._random.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._random.set_state(state["random"])


class AskedStream:
    """Classes in turn and no image: for a generator that learns from something else.

    Args:
        images: tell the shape.
    """

    def __init__(self, images: StoredImages, batch_size: int, num_classes: int) -> None:
        self.images, self.batch_size = images, batch_size
        self._batch = Batch(
            torch.zeros((0, *images.shape), device=images.device),
            torch.arange(batch_size, device=images.device) % num_classes,
        )

    def next(self) -> Batch:
        """The batch, which is always the same."""
        return self._batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing moves."""


def patient_names(table: pd.DataFrame, unit: str) -> pd.Series:
    """Whose each image is; with `unit: image` each image is a patient of its own.

    Args:
        table: the columns image_id and patient_id.

    Raises:
        DataError: an image has no patient id.
    """
    if unit == "image":
        return table["image_id"]
    unknown = int((known_patients(table) == "").sum())
    if unknown:
        raise DataError(
            f"gan.dp.unit: {unknown} of {len(table)} training images have no patient id, so that no patient can be "
            "protected. Name the column in data.source.columns.patient_id, or set gan.dp.unit: image, which "
            "protects single images, and a patient with k of them k times less."
        )
    return patient_units(table)


def patient_numbers(dataset: DataSet, rows: np.ndarray, unit: str) -> Tensor:
    """A number for each patient, of the images at `rows`; see `patient_names`."""
    names = patient_names(dataset.manifest.iloc[rows], unit).to_numpy(dtype=str)
    return torch.from_numpy(np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64))
