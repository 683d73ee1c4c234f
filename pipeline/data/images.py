"""One image in memory, whatever file it came from, and the door to the readers."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UnreadableImage

_HEAD_BYTES = 352  # the NIfTI-1 header and its extension flag: enough for every kind told apart here
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
            (`true` or `false`), and, where a series had to be mended, tilt_degrees and resampled. Never a name.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing: tuple[float, ...]
    unit: str
    meta: dict[str, str]


def read_image(path: Path, *, spatial_dims: int, series_id: str | None = None) -> Image:
    """Read one image: a file of any known kind, or in 3D also the folder of a DICOM series.

    The kind is told by the content, never by the file's ending.

    Args:
        path: a DICOM, NIfTI, PNG, JPEG or npy file, or in 3D a folder of DICOM slices.
        spatial_dims: 2 or 3.
        series_id: which series of the folder, where it holds several.

    Raises:
        UnreadableImage: the image cannot be used; its `reason` is a sentence with the mend.
        ValueError: `spatial_dims` is neither 2 nor 3.
    """
    from pipeline.data import dicom, nifti, raster, series  # the readers import Image from this file

    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, not {spatial_dims}")
    if path.is_dir():
        if spatial_dims == 2:
            raise UnreadableImage(path, "this is a folder, but spatial_dims is 2: name single files, or set it to 3")
        return series.read_series(path, series_id)
    kind = sniff(path)
    if kind == "dicom":
        return dicom.read_dicom_file(path) if spatial_dims == 2 else series.read_multiframe(path)
    if kind == "nifti":
        return nifti.read_nifti(path, spatial_dims=spatial_dims)
    if kind == "npy":
        return raster.read_npy(path, spatial_dims=spatial_dims)
    if kind in ("png", "jpeg"):
        if spatial_dims == 3:
            reason = f"a {kind.upper()} file is flat, but spatial_dims is 3: set it to 2, or give NIfTI or DICOM"
            raise UnreadableImage(path, reason)
        return raster.read_raster(path)
    reason = "the content is not DICOM, NIfTI (.nii, .nii.gz), PNG, JPEG or npy: convert the file to one of these"
    raise UnreadableImage(path, reason)


def sniff(path: Path) -> str:
    """Tell the kind of a file by its first bytes: `dicom`, `nifti`, `png`, `jpeg`, `npy` or `unknown`.

    Raises:
        UnreadableImage: the file is missing or may not be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UnreadableImage(path, f"the file cannot be opened ({error.strerror}): check the path") from error
    if head.startswith(b"\x1f\x8b"):
        return "nifti" if _is_nifti(_gunzipped_head(path)) else "unknown"
    if head[128:132] == b"DICM":
        return "dicom"
    for magic, kind in ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"\x93NUMPY", "npy")):
        if head.startswith(magic):
            return kind
    if _is_nifti(head):
        return "nifti"
    return "dicom" if _is_bare_dicom(head) else "unknown"


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
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        reason = f"{bad} of {array.size} values are NaN or infinite: mend the image, or leave it out"
        raise UnreadableImage(path, reason)


def _gunzipped_head(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_nifti(head: bytes) -> bool:
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _is_bare_dicom(head: bytes) -> bool:
    """Whether the bytes begin with a DICOM element of group 0002 or 0008: old files come without preamble."""
    if len(head) < 8 or head[0:2] not in (b"\x08\0", b"\x02\0", b"\0\x08", b"\0\x02"):
        return False
    order: Literal["little", "big"] = "little" if head[1] == 0 else "big"
    element = int.from_bytes(head[2:4], order)
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return element <= 0x0100 and (explicit or int.from_bytes(head[4:8], order) <= 0x0100)
