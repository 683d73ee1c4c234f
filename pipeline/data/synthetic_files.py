"""A synthetic image as a file of a format that users ask for. Every file says itself that no patient is behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.layout import MANIFEST
from pipeline.data.batches.dataset import read_table
from pipeline.data.batches.scaling import Scaling
from pipeline.data.synthetic_dicom import DicomOrigin, write_synthetic_dicom
from pipeline.data.writers import write_nifti, write_png

FileFormat = Literal["nifti", "png", "dicom"]


def refuse_format(file_format: FileFormat, spatial_dims: int, unit: str) -> None:
    """Refuse a format that does not hold images of so many dimensions in this unit.

    Raises:
        UserError: as above.
    """
    if spatial_dims == 3 and file_format == "png":
        raise UserError("--format png: a volume does not fit into a PNG. Use nifti or dicom.")
    if spatial_dims == 3 and file_format == "dicom" and unit != "HU":
        raise UserError("--format dicom: volumes without a unit have no class in DICOM. Use nifti.")


def write_synthetic(
    stem: Path,
    image: NDArray[np.floating],
    scaling: Scaling,
    spacing: tuple[float, ...],
    file_format: FileFormat,
    origin: DicomOrigin,
) -> list[Path]:
    """Write STEM with the format's ending (a DICOM series: into a folder STEM); give the files in order.

    Args:
        image: [*spatial] in physical values; CT stays in HU, but in a PNG, which holds the window in 256 grey levels.
        spacing: mm on each axis.
    """
    told = f"{origin.remark} SYNTHETIC, no patient: radaug {origin.family}".strip()
    if file_format == "dicom":
        return write_synthetic_dicom(stem, image, scaling, spacing, origin)
    # `with_suffix` would cut a class's name at its last point
    path = stem.with_name(f"{stem.name}{'.png' if file_format == 'png' else '.nii.gz'}")
    if file_format == "png":
        write_png(path, image, scaling.window, told)
    else:
        write_nifti(path, image, _affine(spacing), told)
    return [path]


def shows_x_rays(prepared: Path) -> bool:
    """Whether 2D images without a unit are X-rays: radaug reads those and CT, so unless one says that it is CT."""
    manifest = read_table(prepared / MANIFEST)
    return "modality" not in manifest or "CT" not in set(manifest["modality"])


def grid_spacing(prepared: Path, dims: int) -> tuple[float, ...]:
    """mm a voxel of the prepared images: the median over them, 1 where the source does not say."""
    known = read_table(prepared / MANIFEST)["spacing"].str.split("x", expand=True).astype(float).median()
    return tuple(float(value) for value in known[:dims])


def _affine(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Index to RAS mm: volumes are prepared in RAS+; a 2D image's rows run to posterior, its columns to the left."""
    if len(spacing) == 3:
        return np.diag([*spacing, 1.0])
    affine = np.eye(4)
    affine[:2, :2] = [[0.0, -spacing[1]], [-spacing[0], 0.0]]
    return affine
