"""Near copies among the very images of a release pack: the audit looked at some of the set, here at every one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.compute import Hardware
from pipeline.data.batches.dataset import open_dataset
from pipeline.measures.near_copies import NearCopies, near_copies
from pipeline.privacy.attack import Images
from pipeline.privacy.cohort import member_splits, rows_in
from pipeline.privacy.memorisation import some_validation_rows
from pipeline.privacy.near_search import nearest_known


@dataclass(frozen=True)
class PackCopies:
    """Which of the images are near copies: [N] bool, in their order, with the figures."""

    copies: np.ndarray
    figures: NearCopies


def pack_copies(
    rows: np.ndarray, inputs: Mapping[str, Path], fold: int, *, pool: bool, seed: int = 0, device: str = "cpu"
) -> PackCopies:
    """Judge the images at `rows` of the synthetic set, each one, as the stage `privacy` judges near copies.

    Args:
        inputs: the run's `prepare`, `split` and `synthesise` directories.
        pool: whether the generator learned from the unlabelled images too.
    """
    real, synthetic = open_dataset(inputs["prepare"]), open_dataset(inputs["synthesise"])
    known = rows_in(real, inputs["split"], fold, member_splits(pool=pool))
    held_out = some_validation_rows(real, inputs["split"], fold, seed)
    found, usual = nearest_known(
        Images(synthetic, rows), Images(real, known), Images(real, held_out), Hardware(device, "float32"), seed
    )
    figures = near_copies(found.distance, usual.distance)
    return PackCopies(found.distance < figures.threshold, figures)
