"""The one door to the readers: any file, or the folder of a series, becomes an `Image`."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.dicom import read_dicom_file
from pipeline.data.readers.image import Image
from pipeline.data.readers.kinds import sniff, stands_in
from pipeline.data.readers.nifti import read_nifti
from pipeline.data.readers.plausible import refuse_implausible_size
from pipeline.data.readers.raster import read_npy, read_raster
from pipeline.data.readers.series import read_multiframe, read_series


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
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, not {spatial_dims}")
    image = _read(path, spatial_dims, series_id)
    refuse_implausible_size(path, image)
    return image


def _read(path: Path, spatial_dims: int, series_id: str | None) -> Image:
    if path.is_dir():
        if spatial_dims == 2:
            raise UnreadableImage(path, "this is a folder, but spatial_dims is 2: name single files, or set it to 3")
        return read_series(path, series_id)
    kind = sniff(path)
    if kind == "dicom":
        return read_dicom_file(path) if spatial_dims == 2 else read_multiframe(path)
    if kind == "nifti":
        return read_nifti(path, spatial_dims=spatial_dims)
    if kind == "npy":
        return read_npy(path, spatial_dims=spatial_dims)
    if kind in ("png", "jpeg"):
        if spatial_dims == 3:
            reason = f"a {kind.upper()} file is flat, but spatial_dims is 3: set it to 2, or give NIfTI or DICOM"
            raise UnreadableImage(path, reason)
        return read_raster(path)
    raise UnreadableImage(path, stands_in(path))
