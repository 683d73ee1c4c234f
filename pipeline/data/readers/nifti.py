"""NIfTI files: volumes as stored with their affine, and single slices turned as a radiologist sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger as nibabel_logger
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.image import Image, require_finite
from pipeline.data.readers.plausible import guessed_unit

_ALIKE = 0.01  # of a voxel's size: two statements of it that agree
_SHEAR = 0.005  # cosine between two axes; less than a voxel's drift over 200 voxels
_TURNED = 0.7  # cosine between two statements of an axis: beyond 45 degrees they name another axis or side
_MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path, *, spatial_dims: int) -> Image:
    """Read a single-file NIfTI-1 or -2, gzipped or not, with its stored slope and intercept applied.

    3D: [1, X, Y, Z] as stored; the affine (sform, else qform) tells the directions. 2D: one slice in any plane, turned
    to [1, rows, cols] as displayed: rows run to posterior (axial) or inferior (coronal, sagittal), columns to the
    patient's left or, if sagittal, to posterior. A NIfTI file does not say its unit: it is guessed (`guessed_unit`).

    Raises:
        UnreadableImage: a damaged file, colour or complex values, NaN, several frames, no usable affine, one that is
            sheared or contradicts the other statements of the header, or a volume where `spatial_dims` is 2 and the
            other way round.
    """
    image = _load(path)
    array = _values(path, image)
    affine, known = _affine_mm(path, image)
    if array.ndim > 3 and set(array.shape[3:]) == {1}:
        array = array.reshape(array.shape[:3])
    if array.ndim not in (2, 3):
        reason = f"the file has {array.ndim} axes (shape {array.shape}), such as time points: save one frame per file"
        raise UnreadableImage(path, reason)
    array = array.reshape(*array.shape, 1) if array.ndim == 2 else array
    require_finite(path, array)
    flat = 1 in array.shape
    if spatial_dims == 2 and not flat:
        reason = f"this is a volume (shape {array.shape}), but spatial_dims is 2: set it to 3, or export single slices"
        raise UnreadableImage(path, reason)
    if spatial_dims == 3 and flat:
        raise UnreadableImage(path, f"this is one slice (shape {array.shape}), but spatial_dims is 3: set it to 2")
    if spatial_dims == 2:
        array, affine = _as_displayed(array, affine)
    spacing = tuple(float(mm) for mm in np.linalg.norm(affine[:3, :spatial_dims], axis=0))
    meta = {"spacing_known": "true" if known else "false"}
    if spatial_dims == 3 and int(image.header["sform_code"]) == int(image.header["qform_code"]) == 0:
        meta["sides_known"] = "false"
    return Image(_in_c_order(array)[None], affine, spacing, guessed_unit(array), meta)


def _load(path: Path) -> nib.Nifti1Image:
    """The parsed file; read from bytes, since nibabel would go by the file's ending."""
    try:
        content = path.read_bytes()
        content = igzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, isal_zlib.error) as error:  # type: ignore[misc]  # its stub takes the class for an instance
        raise _damaged(path, error) from None
    if content[344:348] == b"ni1\0" or content[4:8] == b"ni2\0":
        raise UnreadableImage(path, "header and image are two files (.hdr and .img): save it as one .nii file")
    kind = nib.Nifti2Image if content[4:8] == b"n+2\0" else nib.Nifti1Image
    try:
        with _silent_nibabel():
            image: nib.Nifti1Image = kind.from_bytes(content)
    except (OSError, ValueError, HeaderDataError, ImageFileError, WrapStructError) as error:
        raise _damaged(path, error) from None
    offset, least = int(image.dataobj.offset), int(image.header.single_vox_offset)
    if offset < least:
        reason = f"vox_offset ({offset}) lies inside the header, where no values are: it should be {least} or more, "
        raise UnreadableImage(path, reason + "write the file again")
    return image


@contextmanager
def _silent_nibabel() -> Iterator[None]:
    """Nibabel mends small header faults, and prints each."""
    was = nibabel_logger.disabled
    nibabel_logger.disabled = True
    try:
        yield
    finally:
        nibabel_logger.disabled = was


def _values(path: Path, image: nib.Nifti1Image) -> NDArray[np.float32]:
    stored = image.get_data_dtype()
    if stored.kind not in "iufb":
        raise UnreadableImage(path, f"the values are colours or complex numbers ({stored}): save one number per voxel")
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            values: NDArray[np.float32] = np.asarray(image.dataobj).astype(np.float32)
    except (OSError, EOFError, ValueError) as error:
        raise _damaged(path, error) from None
    return values


def _in_c_order(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same values with the last axis running fastest; of a volume plane by plane, which is much quicker."""
    if array.ndim != 3:
        return np.ascontiguousarray(array)
    out = np.empty(array.shape, dtype=array.dtype)
    for row in range(array.shape[1]):
        out[:, row] = array[:, row]
    return out


def _affine_mm(path: Path, image: nib.Nifti1Image) -> tuple[NDArray[np.float64], bool]:
    """Voxel index to RAS mm (sform, else qform, else pixdim), and whether the header states a voxel size at all."""
    header = image.header
    try:
        scale = _MM_PER_UNIT[header.get_xyzt_units()[0]]
    except KeyError:
        reason = f"xyzt_units ({int(header['xyzt_units'])}) names no length unit: set it to mm, if the numbers are mm"
        raise UnreadableImage(path, reason) from None
    affine: NDArray[np.float64] = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-30:
        raise UnreadableImage(path, "the affine is singular or not finite, so voxels have no place: mend the header")
    wide = np.array([*header.get_data_shape()[:3], 1, 1])[:3] > 1  # an axis of one voxel has no step to be wrong
    _refuse_contradiction(path, header, wide)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(np.triu(axes.T @ axes, 1))[np.ix_(wide, wide)]
    if cosines.max(initial=0) > _SHEAR:
        degrees = np.degrees(np.arcsin(cosines.max()))
        reason = (
            f"the affine is sheared: two axes are {degrees:.1f} degrees off a right angle (a tilted gantry that was "
        )
        raise UnreadableImage(path, reason + "not undone?): resample the volume to a straight grid")
    stated = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0 or bool((header["pixdim"][1:4] != 1).any())
    return np.diag([scale, scale, scale, 1.0]) @ affine, stated


def _refuse_contradiction(path: Path, header: nib.Nifti1Header, wide: NDArray[np.bool_]) -> None:
    """Refuse a header whose sform, qform and pixdim give one voxel different sizes or sides."""
    if int(header["sform_code"]) == 0:
        return  # qform and pixdim share their sizes
    sform = np.asarray(header.get_sform(), dtype=np.float64)[:3, :3]
    lengths = np.linalg.norm(sform, axis=0)
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    known = wide & (pixdim > 0)
    mend = "make both forms say the same (in nibabel set_sform and set_qform with one affine), or resample the volume"
    if (np.abs(pixdim - lengths)[known] > _ALIKE * lengths[known]).any():
        sizes = [" x ".join(f"{mm:.4g}" for mm in row) for row in (lengths, pixdim)]
        reason = f"the sform states a voxel of {sizes[0]}, qform and pixdim one of {sizes[1]}: {mend}"
        raise UnreadableImage(path, reason)
    if int(header["qform_code"]) > 0:
        try:
            qform = np.asarray(header.get_qform(), dtype=np.float64)[:3, :3]
        except ValueError:
            raise UnreadableImage(path, f"the qform's quaternion is no rotation, unlike the sform: {mend}") from None
        cosines = (sform / lengths * (qform / np.linalg.norm(qform, axis=0))).sum(axis=0)
        if (cosines[wide] < _TURNED).any():
            sides = [
                "".join(nib.aff2axcodes(np.block([[form, np.zeros((3, 1))], [0, 0, 0, 1]]))) for form in (sform, qform)
            ]
            reason = (
                f"sform and qform contradict each other: axes run to {sides[0]} in one and {sides[1]} in the other, "
            )
            raise UnreadableImage(path, f"{reason}so left and right are not known: {mend}")


def _as_displayed(
    array: NDArray[np.float32], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """[X, Y, Z] with one axis of length 1 to [rows, cols], and the affine for the index (row, col, 0)."""
    stored = orientations.io_orientation(affine)
    towards_lps = orientations.ornt_transform(stored, orientations.axcodes2ornt(("L", "P", "S")))
    shape = orientations.apply_orientation(array, towards_lps).shape
    across = max(axis for axis in range(3) if shape[axis] == 1)
    target = orientations.axcodes2ornt(("L", "P", "S" if across == 2 else "I"))
    turn = orientations.ornt_transform(stored, target)
    turned = orientations.apply_orientation(array, turn)
    affine = affine @ orientations.inv_ornt_aff(turn, array.shape)
    columns, rows = [axis for axis in range(3) if axis != across]
    return np.squeeze(turned, axis=across).T, affine[:, [rows, columns, across, 3]]


def _damaged(path: Path, error: Exception) -> UnreadableImage:
    reason = f"the NIfTI file cannot be decoded ({type(error).__name__}): it is damaged or cut short, export it again"
    return UnreadableImage(path, reason)
