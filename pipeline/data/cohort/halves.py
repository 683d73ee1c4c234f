"""Halves of the patients of a fold, for shadow generators that learn from one half and not from the other."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from pipeline.config.section import Section
from pipeline.core.patients import patient_units


class Half(Section):
    """One of two halves.

    Attributes:
        seed: of the draw; the two sides of a seed have no patient in common, and together they have all.
    """

    seed: int
    side: Literal[0, 1]


def in_half(manifest: pd.DataFrame, half: Half) -> np.ndarray:
    """Which images [N] belong to patients of the half, bool.

    Of the patients of each class every other one, in random order: both sides have about as many.

    Args:
        manifest: the columns image_id, patient_id and label; a patient is of the class of its first image.
    """
    units = patient_units(manifest).to_numpy(dtype=str)
    names, first, index = np.unique(units, return_index=True, return_inverse=True)
    label = manifest["label"].to_numpy(dtype=str)[first]
    order = np.lexsort((np.random.default_rng(half.seed).permutation(len(names)), label))
    place = np.empty(len(names), dtype=int)
    place[order] = np.arange(len(names))
    return np.asarray((place % 2 == half.side)[index])
