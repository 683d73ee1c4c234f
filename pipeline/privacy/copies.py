"""Near copies among images of a generator, those of a run or those of a release pack: one search and one judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.compute import Hardware
from pipeline.core.patients import patient_units
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.measures.near_copies import NearCopies, Nearness, near_copies, near_limit
from pipeline.privacy.attack import Images
from pipeline.privacy.cohort import UNSEEN, member_splits, rows_in
from pipeline.privacy.near_search import NearSearch

MOST_UNSEEN = 1000
"""Images of unseen patients that are the measure, at most."""


@dataclass(frozen=True)
class Copies:
    """What was found.

    Attributes:
        judged: which of the images are near copies, with the figures.
        distance: [N] of each image to the nearest training image, in units of the median of unseen real images.
        which: [N] where that training image is in the data set.
        nearest_unseen: the smallest distance of any image to an unseen patient's, in the same unit.
        num_unseen: images of unseen patients that were the measure.
    """

    judged: NearCopies
    distance: np.ndarray
    which: np.ndarray
    nearest_unseen: float
    num_unseen: int

    def figures(self) -> dict[str, float]:
        """By name, for a record and the gate."""
        judged = self.judged
        return {
            "near_copies": judged.share,
            "near_copies_low": judged.low,
            "near_copies_high": judged.high,
            "near_copies_control": judged.control,
            "copies": float(judged.copies.sum()),
            "near_patients": judged.patients[0],
            "near_patients_of": judged.patients[1],
            "near_unseen": judged.unseen[0],
            "near_unseen_of": judged.unseen[1],
        }


def find_copies(
    shown: Images, inputs: Mapping[str, Path], fold: int, *, pool: bool, seed: int, device: str = "cpu"
) -> Copies:
    """Judge every image of `shown` by its distance to the fold's training images, and to unseen patients' images.

    Args:
        inputs: the run's `prepare` and `split` directories.
        pool: whether the generator learned from the unlabelled images too.
        seed: of the unseen images that are drawn where there are many, and of the net where all pairs are too many.
    """
    real = open_dataset(inputs["prepare"])
    known = rows_in(real, inputs["split"], fold, member_splits(pool=pool))
    unseen = rows_in(real, inputs["split"], fold, UNSEEN)
    unseen = np.sort(numpy_generator(seed, "unseen").permutation(unseen)[:MOST_UNSEEN])
    return judge_copies(
        shown, Images(real, known), Images(real, unseen), Hardware(device, "float32"), derive_seed(seed, "net")
    )


def judge_copies(shown: Images, known: Images, unseen: Images, hardware: Hardware, seed: int) -> Copies:
    """The same, of images that are given; `known` are those of training patients."""
    search = NearSearch(known, unseen, len(shown), hardware, seed)
    usual = search.usual.distance
    apart = unseen.rows[usual >= near_limit(usual)]  # the others are pictures of training patients too
    found, to_unseen = search.among_known(shown), search.among_others(shown, Images(unseen.dataset, apart))
    judged = near_copies(
        _nearness(found.distance, known.rows[found.which], known.dataset, known.rows),
        _nearness(to_unseen.distance, apart[to_unseen.which], unseen.dataset, apart),
        usual,
    )
    nearest_unseen = float(to_unseen.distance.min(initial=np.inf))
    return Copies(judged, found.distance, known.rows[found.which], nearest_unseen, len(usual))


def _nearness(distance: np.ndarray, nearest: np.ndarray, dataset: DataSet, rows: np.ndarray) -> Nearness:
    """By patient; `nearest`: [N] where the image nearest to each is, among `rows`."""
    patient = patient_units(dataset.manifest).to_numpy(dtype=str)
    return Nearness(distance, patient[nearest], len(np.unique(patient[rows])))
