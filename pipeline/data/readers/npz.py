"""MedMNIST files: `{train,val,test}_images` and `_labels` in one npz."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.loading import PATHS_START
from pipeline.core.errors import DataError
from pipeline.core.text import foreign_kind
from pipeline.data.readers.image import Image

SPLITS = ("train", "val", "test")
_ROW = re.compile(r"(.+\.(?i:npz))#((?:train|val|test)/\d+)")


def npz_place(path: str) -> tuple[str, str] | None:
    """The file and the `SPLIT/NUMBER` that a manifest path such as `FILE.npz#train/12` names; None for other paths."""
    match = _ROW.fullmatch(path)
    return (match[1], match[2]) if match else None


class NpzFile:
    """Arrays of an npz file; each is unpacked once, when it is first asked for.

    Raises:
        DataError: the file is not there, or not an npz file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._arrays: dict[str, np.ndarray] = {}
        if not path.is_file():
            raise DataError(f"{path.name}: there is no such file in {path.parent}. {PATHS_START}")
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path.name}: is not an npz file. {_what_it_is(path)}")
        with zipfile.ZipFile(path) as archive:
            self.keys = tuple(name.removesuffix(".npy") for name in archive.namelist())

    def array(self, key: str) -> np.ndarray[Any, Any]:
        if key not in self._arrays:
            try:
                with np.load(self._path, allow_pickle=False) as file:
                    self._arrays[key] = file[key]
            except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise DataError(
                    f"{self._path.name}: {key} cannot be read: it is damaged, or holds pickled objects, which "
                    "are never opened. Save plain numbers with numpy.savez_compressed."
                ) from error
        return self._arrays[key]

    def image(self, place: str) -> Image:
        """The image at `SPLIT/NUMBER`, float32 [1, *spatial], 1 mm a voxel."""
        split, _, number = place.partition("/")
        array = self.array(f"{split}_images")[int(number)].astype(np.float32)[None]
        return Image(array, np.eye(4), (1.0,) * (array.ndim - 1), "none", {"spacing_known": "false"})


def _what_it_is(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PK"):
        return "It is cut short: copy or download it again."
    kind = foreign_kind(head)
    return f"It is {kind}." if kind else "Save plain arrays with numpy.savez_compressed."


def npz_rows(path: Path, classes: Sequence[str], spatial_dims: int, patients: Mapping[str, str]) -> pd.DataFrame:
    """One row an image, `FILE.npz#train/12`, with the file's own split; label i is the i-th of `classes`.

    Args:
        patients: split -> patient id, for splits that come from one patient.

    Raises:
        DataError: keys are missing, arrays do not fit each other, `spatial_dims` or `classes`.
    """
    file = NpzFile(path)
    splits = [split for split in SPLITS if f"{split}_images" in file.keys]
    if not splits:
        raise DataError(
            f"{path.name}: needs train_images and train_labels (and val_, test_). It has: {', '.join(file.keys)}."
        )
    _check_class_names(file, path, classes)
    rows = []
    for split in splits:
        for number, label in enumerate(_labels(file, path, split, classes, spatial_dims)):
            rows.append((f"{path.name}#{split}/{number}", classes[label], patients.get(split, ""), split))
    return pd.DataFrame(rows, columns=["path", "label", "patient_id", "split"], dtype=str)


def _labels(file: NpzFile, path: Path, split: str, classes: Sequence[str], spatial_dims: int) -> list[int]:
    key = f"{split}_labels"
    if key not in file.keys:
        raise DataError(f"{path.name}: has {split}_images but no {key}. It has: {', '.join(file.keys)}.")
    images, labels = file.array(f"{split}_images"), file.array(key)
    if images.ndim != spatial_dims + 1:
        raise DataError(
            f"{path.name}: {split}_images has shape {images.shape}; with data.spatial_dims: {spatial_dims} it needs "
            f"{spatial_dims + 1} axes (images first). Colour images are not supported."
        )
    if images.dtype.kind not in "uif":
        raise DataError(f"{path.name}: {split}_images holds {images.dtype}, not numbers.")
    numbers = labels.reshape(len(labels), -1)
    if len(labels) != len(images) or numbers.shape[1] != 1 or labels.dtype.kind not in "ui":
        raise DataError(
            f"{path.name}: {key} must be whole numbers of shape ({len(images)}, 1), not {labels.dtype} {labels.shape}."
        )
    outside = sorted(set(numbers[:, 0].tolist()) - set(range(len(classes))))
    if outside:
        raise DataError(
            f"{path.name}: {key} holds {outside[:5]}, but data.classes names {len(classes)} classes: label i is the "
            "i-th of them, from 0."
        )
    return [int(number) for number in numbers[:, 0]]


def _check_class_names(file: NpzFile, path: Path, classes: Sequence[str]) -> None:
    if "class_names" not in file.keys:
        return
    names = [str(name) for name in file.array("class_names").ravel()]
    if names != list(classes) and set(names) == set(classes):
        raise DataError(
            f"{path.name}: its labels count the classes in the order {names}. Write data.classes in that order."
        )
