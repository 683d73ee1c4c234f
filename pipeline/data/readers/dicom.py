"""Single DICOM files: one image, or the facts of its header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.header import (
    Plane,
    decoding,
    find_plane,
    header_facts,
    is_ct,
    load,
    pixel_spacing,
    refuse_localizer,
)
from pipeline.data.readers.image import Image
from pipeline.data.readers.pixels import physical_frames


def read_header(path: Path) -> dict[str, str]:
    """The facts of `Image.meta` without reading pixels; a fact that the file lacks is left out.

    Raises:
        UnreadableImage: the file is not DICOM, or its header is damaged.
    """
    dataset = load(path, pixels=False)
    with decoding(path, "the header"):
        return header_facts(dataset)


def read_dicom_file(path: Path) -> Image:
    """Read a single-frame DICOM file as a 2D image [1, rows, cols], as displayed.

    CT is given in Hounsfield units, not below -1024; other modalities after their modality LUT, with MONOCHROME1
    inverted so that high is bright. The window (VOI LUT) is never applied. Colour becomes grey.

    Raises:
        UnreadableImage: no or damaged pixels, several frames, a CT localizer, a CT without rescale, a missing codec.
    """
    dataset = load(path, pixels=True)
    with decoding(path, "the image"):
        refuse_localizer(path, dataset)
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames > 1:
            reason = f"the file holds {frames} frames, but spatial_dims is 2: set it to 3, or export single slices"
            raise UnreadableImage(path, reason)
        values = physical_frames(path, dataset)[0]
        meta = header_facts(dataset)
        mm = pixel_spacing(dataset)
        plane = find_plane(dataset)
        affine = np.diag([*(mm or (1.0, 1.0)), 1.0, 1.0]) if plane is None else _plane_affine(plane, meta)
    unit = "HU" if is_ct(dataset) else "none"
    return Image(values[None], affine, mm or (1.0, 1.0), unit, meta, unit_stated=True)


def _plane_affine(plane: Plane, meta: dict[str, str]) -> NDArray[np.float64]:
    """Index (row, col, 0) to RAS mm; the third axis is the slice normal, as long as the slice is thick."""
    thickness = float(meta.get("slice_thickness_mm", 1.0))
    affine = np.eye(4)
    affine[:3, 0] = plane.along_rows * plane.pixel_mm[0]
    affine[:3, 1] = plane.along_columns * plane.pixel_mm[1]
    affine[:3, 2] = plane.normal * (thickness if 0 < thickness < np.inf else 1.0)
    affine[:3, 3] = plane.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
