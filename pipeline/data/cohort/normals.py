"""Who is a normal patient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.patients import patient_units
from pipeline.data.batches.dataset import DataSet


def normal_rows(dataset: DataSet, normal: Sequence[str]) -> np.ndarray:
    """Which images [N] are normal ones of normal patients, bool.

    A patient of whom any image, in any split, is labelled as something else is not normal, whatever the other images
    show; an unlabelled image makes nobody normal.
    """
    label = dataset.manifest["label"]
    shows_disease = (label != "") & ~label.isin(normal)
    units = patient_units(dataset.manifest)
    diseased = set(units[shows_disease])
    return (label.isin(normal) & ~units.isin(diseased)).to_numpy()
