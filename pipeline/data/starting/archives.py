"""What an npz file in MedMNIST's form says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.core.errors import UserError
from pipeline.data.readers.npz import SPLITS, NpzFile

_KNOWN = {
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal or benign"),
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "nodulemnist3d": ("benign", "malignant"),
    "vesselmnist3d": ("vessel", "aneurysm"),
    "fracturemnist3d": ("buckle", "nondisplaced", "displaced"),
}
"""Classes of MedMNIST v2's sets, whose files do not name them, in the order of their labels (medmnist/info.py)."""


def read_archive(path: Path) -> tuple[tuple[str, ...], str, tuple[str, ...], tuple[int, ...]]:
    """Classes in the order of their labels, who names them ("" = nobody), splits, and the shape of one image.

    Raises:
        DataError: it is no npz file, or arrays cannot be read.
        UserError: it has not the keys, or other labels than one whole number an image.
    """
    file = NpzFile(path)
    splits = tuple(split for split in SPLITS if {f"{split}_images", f"{split}_labels"} <= {*file.keys})
    if not splits:
        raise UserError(
            f"{path}: needs train_images and train_labels (and val_, test_), as MedMNIST has. It has: "
            f"{', '.join(file.keys)}."
        )
    labels = [file.array(f"{split}_labels") for split in splits]
    if any(one.dtype.kind not in "ui" or one.size != len(one) for one in labels):
        raise UserError(f"{path}: its labels are not one whole number an image, so they are not classes.")
    found = np.unique(np.concatenate([one.reshape(-1) for one in labels]))
    shape = file.array(f"{splits[0]}_images").shape[1:]
    if len(found) < 2:
        raise UserError(f"{path}: all images have one label, so there is nothing to tell apart.")
    if "class_names" in file.keys:
        return tuple(str(name) for name in file.array("class_names").ravel()), "the file names them", splits, shape
    known = next((names for name, names in _KNOWN.items() if path.stem.lower().startswith(name)), ())
    if len(known) > int(found.max()):
        return known, f"{path.stem} is a MedMNIST set, whose classes are known", splits, shape
    return tuple(f"class_{number}" for number in range(int(found.max()) + 1)), "", splits, shape
