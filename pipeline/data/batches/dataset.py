"""A data set is a directory, real and synthetic alike: manifest.csv, images.npy, record.json, perhaps masks.npy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.core.errors import DataError
from pipeline.core.files import atomic_path, reserve
from pipeline.core.layout import IMAGES, MANIFEST, MASKS
from pipeline.core.records import load_record
from pipeline.data.batches.scaling import Scaling

_BLOCK, _BLOCK_VALUES = 128, 2**21
"""Images, and voxels, that are looked at together, at most."""


@dataclass(frozen=True)
class DataSet:
    """Images with their manifest; row i of the manifest is image i.

    Attributes:
        manifest: all text; at least image_id, label ("" = unlabelled) and patient_id ("" = none).
        images: memory-mapped [N, C, *spatial] in stored numbers.
        scaling: how stored numbers are to be read.
        masks: memory-mapped [N, 1, *spatial] uint8 of 0 and 1, or None.
    """

    root: Path
    manifest: pd.DataFrame
    images: np.ndarray
    scaling: Scaling
    masks: np.ndarray | None = None

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Positions of `image_ids`, in their order.

        Raises:
            DataError: an id is not in the data set.
        """
        index = pd.Index(self.manifest["image_id"])
        found = index.get_indexer(pd.Index(image_ids))
        if (found < 0).any():
            raise DataError(f"{self.root.name}: {int((found < 0).sum())} image ids are not in this data set.")
        return np.asarray(found)

    def tensor(self, rows: np.ndarray) -> torch.Tensor:
        """Images at `rows` as float32 [B, C, *spatial] in [-1, 1], on the CPU."""
        return self.scaling.to_model(torch.from_numpy(np.ascontiguousarray(self.images[rows])))

    def blocks(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        """The same of many images, as many at a time as are looked at together, in their order."""
        size = max(1, min(_BLOCK, _BLOCK_VALUES // int(np.prod(self.images.shape[1:]))))
        for start in range(0, len(rows), size):
            yield self.tensor(rows[start : start + size])

    def labels(self, rows: np.ndarray, classes: Sequence[str]) -> torch.Tensor:
        """Class numbers [B] (int64) of the labels at `rows`.

        Raises:
            DataError: a label is empty or not among `classes`.
        """
        names = self.manifest["label"].iloc[rows]
        numbers = pd.Index(classes).get_indexer(pd.Index(names))
        if (numbers < 0).any():
            raise DataError(f"{self.root.name}: labels outside {list(classes)}: {sorted(set(names[numbers < 0]))}")
        return torch.from_numpy(np.asarray(numbers, dtype=np.int64))

    def numbers(self, rows: np.ndarray, columns: Sequence[str]) -> np.ndarray:
        """Values [B, len(columns)] of numeric columns at `rows`; NaN where a cell is not a number.

        Raises:
            DataError: there is no such column.
        """
        absent = [name for name in columns if name not in self.manifest]
        if absent:
            raise DataError(
                f"the manifest has no column {', '.join(absent)}; it has {', '.join(self.manifest.columns)}."
            )
        cells = self.manifest[list(columns)].iloc[rows]
        return cells.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV as text: ids such as 007 keep their zeros, and empty cells are empty strings."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def new_array(path: Path, kind: str | type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[Any]]:
    """A new array in a file, zeros so far, to be filled through its memory map; its disk space is taken now.

    Raises:
        OSError: the disk is full.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(kind), shape=shape)
    reserve(path)
    return array


def open_dataset(root: Path) -> DataSet:
    """Open a finished data set directory.

    Raises:
        DataError: manifest and images do not belong together.
    """
    scaling = Scaling.from_json(load_record(root).extra["scaling"])
    manifest = read_table(root / MANIFEST)
    images = np.load(root / IMAGES, mmap_mode="r", allow_pickle=False)
    if len(manifest) != len(images):
        raise DataError(f"{root.name}: {MANIFEST} has {len(manifest)} rows, {IMAGES} has {len(images)}. Make it again.")
    masks = np.load(root / MASKS, mmap_mode="r", allow_pickle=False) if (root / MASKS).is_file() else None
    return DataSet(root, manifest, images, scaling, masks)
