"""One image in memory, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UnreadableImage

_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the weights that PIL uses for mode L


@dataclass(frozen=True)
class Image:
    """One image or volume as a reader gives it.

    Attributes:
        array: float32. 2D: [C, rows, cols] as displayed. 3D: [C, X, Y, Z], axes as the affine says.
        affine: 4 x 4 float64, voxel index in array axis order (2D: row, col, 0) to RAS mm, as nibabel has it.
            Where a 2D file does not place the image in the patient it is only the spacing on the diagonal.
        spacing: mm for each spatial axis of the array; 1.0 where the file does not say.
        unit: `HU` where the values are Hounsfield units, else `none`.
        meta: text facts, each only where known: modality, body_part, manufacturer, model, kernel, slice_thickness_mm,
            study_id, series_id, sop_instance_id, patient_id, sex, age (years), photometric, always spacing_known
            (`true` or `false`), sides_known (`false` where a volume does not tell left from right), and, where a
            series had to be mended, tilt_degrees and resampled. Never a name.
        unit_stated: whether the file itself says its unit; else `unit` is a guess.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing: tuple[float, ...]
    unit: str
    meta: dict[str, str]
    unit_stated: bool = False


def grey(path: Path, colour: NDArray[Any]) -> NDArray[np.float32]:
    """Luminance (ITU-R BT.601) of a colour image [..., 3] or [..., 4], rounded to the whole numbers of its range.

    Raises:
        UnreadableImage: the last axis has neither 3 nor 4 samples.
    """
    if colour.shape[-1] not in (3, 4):
        reason = f"{colour.shape[-1]} samples per pixel are neither grey nor colour: save it as grey"
        raise UnreadableImage(path, reason)
    luminance: NDArray[np.float32] = np.rint(colour[..., :3] @ _LUMINANCE).astype(np.float32)
    return luminance


def require_finite(path: Path, array: NDArray[Any]) -> None:
    """Refuse an array without values, or with values that are NaN or infinite, and say how many.

    Raises:
        UnreadableImage: as above.
    """
    if array.size == 0:
        raise UnreadableImage(path, f"the image is empty (shape {array.shape}): export it again")
    if array.dtype.kind in "iub":
        return
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        reason = f"{bad} of {array.size} values are NaN or infinite: mend the image, or leave it out"
        raise UnreadableImage(path, reason)
