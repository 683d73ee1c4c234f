"""Who is a normal patient: the images that detectors learn from, and those that they are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.anomaly.detector import ImageSet, Normals
from pipeline.data.batches.dataset import open_dataset
from pipeline.data.cohort.folds import open_fold, split_ids
from pipeline.data.cohort.normals import normal_rows

TRIED = ("val", "test", "external")
"""Splits whose images are scored."""


@dataclass(frozen=True)
class Cohort:
    """The images of a fold.

    Attributes:
        normals: what detectors learn from.
        tried: images of the splits in TRIED that are there, with their labels in the data set's manifest.
    """

    normals: Normals
    tried: dict[str, ImageSet]


def cohort_of(prepare: Path, split: Path, fold: int, normal: Sequence[str]) -> Cohort:
    """The fold's images, sorted by whether their patients are normal.

    Raises:
        LeakageError: a patient, or an image pixel for pixel, is on more than one side of the fold.
    """
    known = open_fold(prepare, split, fold)
    ids = {name: split_ids(split, fold, name) for name in ("train", "unlabelled", *TRIED)}
    rows = {name: known.rows(found) for name, found in ids.items()}
    healthy = normal_rows(known, normal)
    normals = {name: ImageSet(known, rows[name][healthy[rows[name]]]) for name in ("train", "val")}
    mixed = ImageSet(known, np.concatenate([rows["train"], rows["unlabelled"]]))
    everything = open_dataset(prepare)
    return Cohort(
        Normals(normals["train"], normals["val"], mixed),
        {name: ImageSet(everything, rows[name]) for name in TRIED if len(rows[name])},
    )
