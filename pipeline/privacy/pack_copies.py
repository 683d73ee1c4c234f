"""Near copies among the very images of a release pack: the audit looked at some of the set, here at every one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.seeds import numpy_generator
from pipeline.data.batches.dataset import open_dataset
from pipeline.data.cohort.folds import split_ids
from pipeline.measures.near_copies import NearCopies, near_copies
from pipeline.privacy.attack import Images
from pipeline.privacy.memorisation import likenesses

_HELD_OUT = 500
_BLOCK = 2000
"""Images whose distances to all training images are held at a time."""


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
    seen = ("train", "unlabelled") if pool else ("train",)
    known = real.rows([one for split in seen for one in split_ids(inputs["split"], fold, split)])
    held_out = real.rows(split_ids(inputs["split"], fold, "val"))
    some = numpy_generator(seed, "validation").permutation(len(held_out))[:_HELD_OUT]
    held_out = held_out[np.sort(some)]
    nearest, of_held_out = [], np.empty(0)
    for start in range(0, len(rows), _BLOCK):
        block = Images(synthetic, rows[start : start + _BLOCK])
        likeness, held = likenesses(block, Images(real, known), Images(real, held_out), device)
        nearest.append(likeness.min(axis=1))
        of_held_out = held.min(axis=1)
    found = np.concatenate(nearest)
    figures = near_copies(found, of_held_out)
    return PackCopies(found < figures.threshold, figures)
