"""Who is a member and who is not: the patients that a generator learned from, and those that it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.layout import MANIFEST, SPLITS_FILE
from pipeline.core.patients import patient_units
from pipeline.core.seeds import numpy_generator
from pipeline.data.batches.dataset import DataSet, open_dataset, read_table
from pipeline.data.cohort.folds import split_ids
from pipeline.data.cohort.leakage import assert_no_leakage
from pipeline.privacy.attack import Candidates, Images

UNSEEN = ("val", "test")


@dataclass(frozen=True)
class Cohort:
    """Candidates with what the attacks are not told.

    Attributes:
        member: [N] bool.
    """

    candidates: Candidates
    member: np.ndarray

    def lacking(self, fewest: int) -> str:
        """What an audit needs and this cohort has not, in a sentence; empty where nothing lacks."""
        unseen, seen = (len(np.unique(self.candidates.patient[side])) for side in (~self.member, self.member))
        for number, who in ((unseen, "patients that the generator never saw"), (seen, "training patients")):
            if number < fewest:
                return (
                    f"There are {number} {who} (validation and test patients are unseen), and an audit needs {fewest}. "
                    "Give more patients, or set aside more by data.split."
                )
        label = self.candidates.label
        alone = sorted(set(label[self.member]) - set(label[~self.member]))
        if alone:
            return f"No unseen image is of the class {', '.join(alone)}, so that its training patients have no control."
        return ""


def member_splits(*, pool: bool) -> tuple[str, ...]:
    """The splits of a fold that its generator learned from; `pool`: the unlabelled images too."""
    return ("train", "unlabelled") if pool else ("train",)


def rows_in(dataset: DataSet, split: Path, fold: int, splits: Sequence[str]) -> np.ndarray:
    """Where the images of these splits of the fold are in the data set, split by split.

    Args:
        split: the run's `split` directory.
    """
    return dataset.rows([one for name in splits for one in split_ids(split, fold, name)])


def cohort_of(inputs: Mapping[str, Path], fold: int, *, pool: bool, most: int, seed: int) -> Cohort:
    """Members and non-members of the generator of `fold`, in the data set's order.

    Args:
        inputs: the run's `prepare` and `split` directories.
        pool: whether the generator learned from the unlabelled images too: they are members then, and since they have
            no class, classes do not count. Else nobody trains on them, and they are neither.
        most: images of either side; where there are more, whole patients are drawn.

    Raises:
        LeakageError: a patient, or an image pixel for pixel, is on both sides.
    """
    dataset = open_dataset(inputs["prepare"])
    splits = read_table(inputs["split"] / SPLITS_FILE)
    assert_no_leakage(splits[splits["fold"] == str(fold)], read_table(inputs["split"] / MANIFEST))
    sides = {True: member_splits(pool=pool), False: UNSEEN}
    rows, member = [], []
    for joined, names in sides.items():
        own = rows_in(dataset, inputs["split"], fold, names)
        own = _drawn(dataset.manifest, own, most, numpy_generator(seed, "member" if joined else "unseen"))
        rows.append(own)
        member.append(np.full(len(own), joined))
    order = np.argsort(np.concatenate(rows), kind="stable")
    at, joined_at = np.concatenate(rows)[order], np.concatenate(member)[order]
    table = dataset.manifest.iloc[at]
    label = np.full(len(at), "") if pool else table["label"].to_numpy(dtype=str)
    patient = np.unique(patient_units(table).to_numpy(dtype=str), return_inverse=True)[1]
    return Cohort(Candidates(Images(dataset, at), label, patient), joined_at)


def _drawn(manifest: pd.DataFrame, rows: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """All of `rows`, or those of whole patients drawn at random until the next one would be too much."""
    if len(rows) <= most:
        return rows
    units = np.unique(patient_units(manifest.iloc[rows]).to_numpy(dtype=str), return_inverse=True)[1]
    place = random.permutation(units.max() + 1)[units]
    order = np.argsort(place, kind="stable")
    kept = np.cumsum(np.bincount(place)) <= most
    return rows[order[kept[place[order]]]]
