"""The split as later stages read it: who is on which side of a fold, and the images that its training may know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from pipeline.core.errors import DataError
from pipeline.core.layout import MANIFEST, SPLITS_FILE
from pipeline.data.batches.dataset import DataSet, open_dataset, read_table
from pipeline.data.cohort.cells import cells_named
from pipeline.data.cohort.leakage import assert_no_leakage


def split_ids(split_dir: Path, fold: int, split: str) -> list[str]:
    """Image ids of `split` (train, val, test, external, unlabelled, unused) in `fold`, in the manifest's order.

    Raises:
        DataError: there is no such fold.
    """
    part = _rows_of_fold(split_dir, fold)
    return list(part["image_id"][part["split"] == split])


def _rows_of_fold(split_dir: Path, fold: int) -> pd.DataFrame:
    splits = read_table(split_dir / SPLITS_FILE)
    part = splits[splits["fold"] == str(fold)]
    if part.empty:
        raise DataError(f"{SPLITS_FILE}: there is no fold {fold}; it has {splits['fold'].nunique()}, counted from 0.")
    return part


def open_fold(prepare: Path, split_dir: Path, fold: int) -> DataSet:
    """The prepared images as what trains in `fold` may know them: those in `unlabelled` have no label.

    Raises:
        DataError: there is no such fold, or the directories do not belong together.
        LeakageError: a patient, or an image pixel for pixel, is on more than one side of the fold.
    """
    dataset, part = open_dataset(prepare), _rows_of_fold(split_dir, fold)
    assert_no_leakage(part, read_table(split_dir / MANIFEST))
    hidden = dataset.manifest["image_id"].isin(part["image_id"][part["split"] == "unlabelled"])
    return replace(dataset, manifest=dataset.manifest.assign(label=dataset.manifest["label"].mask(hidden, "")))


def labelled_by_cell(dataset: DataSet, site: str) -> DataSet:
    """The data set with `LABEL of SITE` in place of every label.

    Args:
        site: the manifest's column of the site.
    """
    return replace(dataset, manifest=dataset.manifest.assign(label=cells_named(dataset.manifest, site)))
