"""Shift is no disease: were new images acquired as the normal images of validation patients were?

An anomaly score rises with another scanner too. Statistics that tell how an image was acquired are therefore compared
beside the scores, whole patients at a time.

How small a change raises the alarm, and how large a lesion does, is measured by benchmarks/shift_alarms.py. With few
patients, or smaller changes, a shift may be missed; a batch full of large lesions looks like one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import DataError
from pipeline.core.files import read_json, write_json
from pipeline.core.layout import ACQUISITION
from pipeline.core.seeds import derive_seed
from pipeline.measures.acquisition import STATISTICS, acquisition_statistics
from pipeline.measures.paired import holm
from pipeline.measures.two_sample import least_p, patient_means, two_sample_test

ALPHA = 0.01
"""At most one batch in a hundred that was acquired alike is called shifted."""


@dataclass(frozen=True)
class Acquired:
    """How some images were acquired.

    Attributes:
        statistics: [N, S], the columns of `STATISTICS`.
        patients: [N], whose image each is.
    """

    statistics: np.ndarray
    patients: np.ndarray


@dataclass(frozen=True)
class Shift:
    """A comparison of new images with the validation normals.

    Attributes:
        p: that they were acquired alike, if they show the same.
        moved: the statistics that moved, by Holm's rule, such as `noise up`.
        num_patients: of the new images.
        least: the smallest p-value that so few patients can give.
    """

    p: float
    moved: tuple[str, ...]
    num_patients: int
    least: float

    @property
    def alarm(self) -> bool:
        return self.p <= ALPHA

    @property
    def too_few(self) -> bool:
        """Whether so few patients cannot raise an alarm."""
        return self.least > ALPHA

    @property
    def sentence(self) -> str:
        """What it says of new images of which nobody knows who is ill."""
        if self.too_few:
            return f"Shift: {self.num_patients} new patients are too few to tell another way of acquisition."
        if not self.alarm:
            return f"No shift is told: the images look acquired as the validation normals do (p = {self.p:.2g})."
        return (
            f"Shift: the images look otherwise acquired than the validation normals ({self.what_moved}; "
            f"p = {self.p:.2g}): high scores may mean the scanner, unless a large part of the images shows disease."
        )

    @property
    def what_moved(self) -> str:
        """In words, also where no single statistic is told apart."""
        return ", ".join(self.moved) or "no single statistic"


def acquired(blocks: Iterable[Tensor], patients: np.ndarray) -> Acquired:
    """The statistics of images, given block by block [B, C, *spatial] in [-1, 1], and the patient of each [N]."""
    found = [acquisition_statistics(block) for block in blocks] or [torch.empty(0, len(STATISTICS))]
    return Acquired(torch.cat(found).double().numpy(), patients)


def shift_between(reference: Acquired, new: Acquired, seed: int = 0, *, singly: bool = False) -> Shift:
    """Compare new images with the reference.

    Args:
        singly: the patients of the new images are not known, so that each image stands for itself; of a reference
            patient one image, drawn at random, does then.

    Raises:
        DataError: one side has no image.
    """
    if not len(reference.patients) or not len(new.patients):
        raise DataError("shift: there is nothing to compare: either side needs an image.")
    if singly:
        reference = _one_each(reference, seed)
        new = Acquired(new.statistics, np.arange(len(new.patients)))
    known, tried = (patient_means(each.statistics, each.patients) for each in (reference, new))
    found = two_sample_test(known, tried, seed=derive_seed(seed, "shift"))
    moved = tuple(
        f"{name} {'up' if direction > 0 else 'down'}"
        for name, p_value, direction in zip(STATISTICS, holm(found.p_values), found.directions, strict=True)
        if p_value <= ALPHA
    )
    return Shift(found.p, moved, len(tried), least_p(len(known), len(tried)))


def _one_each(images: Acquired, seed: int) -> Acquired:
    """One image of every patient."""
    order = np.random.default_rng(derive_seed(seed, "one image each")).permutation(len(images.patients))
    _, first = np.unique(images.patients[order], return_index=True)
    chosen = np.sort(order[first])
    return Acquired(images.statistics[chosen], images.patients[chosen])


def save_reference(directory: Path, normals: Acquired) -> None:
    """Write ACQUISITION: the statistics of the validation normals, with a number in place of each patient."""
    numbers = np.unique(normals.patients, return_inverse=True)[1]
    rows = [[float(f"{value:.6g}") for value in row] for row in normals.statistics.tolist()]
    write_json(directory / ACQUISITION, {"names": list(STATISTICS), "statistics": rows, "patients": numbers.tolist()})


def read_reference(directory: Path) -> Acquired:
    """What `save_reference` wrote, for comparing new images with it.

    Raises:
        DataError: it is missing, damaged, or of other statistics than these.
    """
    try:
        found = read_json(directory / ACQUISITION)
        statistics = np.array(found["statistics"], dtype=np.float64).reshape(-1, len(STATISTICS))
        patients = np.array(found["patients"], dtype=np.int64)
        if found["names"] != list(STATISTICS) or len(patients) != len(statistics):
            raise ValueError("other statistics")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{ACQUISITION}: is missing, damaged, or of another version; do `radaug run` again.") from error
    return Acquired(statistics, patients)
