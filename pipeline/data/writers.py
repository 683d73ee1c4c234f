"""Arrays to image files: NIfTI, PNG, DICOM. Every file is whole or absent.

An affine here is 4x4 and takes a voxel's index, in the order of the ARRAY's axes, to RAS mm (nibabel's convention).
DICOM's patient system is LPS. A 2D array is [rows, cols] as displayed: rows run to posterior, columns to the left.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from pipeline.core.errors import DataError
from pipeline.core.files import write_bytes
from pipeline.data.readers.plausible import HIGHEST_HU

Array = NDArray[np.generic]
Floats = NDArray[np.floating]

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
HU_OFFSET = -1024
STORED_MAX = 65535


@dataclass(frozen=True)
class DicomIds:
    """Who an image belongs to. UIDs are derived from these texts alone: same ids, same UIDs.

    Attributes:
        patient_id: also written as the patient's name; a pseudonym such as "phantom-0007".
        study, series, image: texts that tell apart a patient's studies, a study's series and a series' images.
    """

    patient_id: str
    study: str = "1"
    series: str = "1"
    image: str = "1"

    def study_uid(self) -> UID:
        return generate_uid(entropy_srcs=["radaug", "study", self.patient_id, self.study])

    def series_uid(self) -> UID:
        return generate_uid(entropy_srcs=["radaug", "series", self.patient_id, self.study, self.series])

    def image_uid(self) -> UID:
        return generate_uid(entropy_srcs=["radaug", "image", self.patient_id, self.study, self.series, self.image])

    def frame_of_reference_uid(self) -> UID:
        return generate_uid(entropy_srcs=["radaug", "frame of reference", self.patient_id, self.study])


@dataclass(frozen=True)
class SlicePlace:
    """Where a slice lies: LPS mm of its first pixel's centre, direction cosines along a row and down a column."""

    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: tuple[float, float, float, float, float, float] = AXIAL
    number: int = 1


def write_nifti(path: Path, array: Array, affine: Floats | None = None, description: str = "") -> None:
    """Write a 2D or 3D array as `.nii` or `.nii.gz`: int16 where all values are integers that fit, else float32.

    Args:
        array: [X, Y, Z], or [rows, cols] as displayed, which is stored as [cols, rows, 1], so that reading it,
            reorienting to LPS and transposing gives back rows and columns.
        affine: array index to RAS mm, for 2D the index (row, col, 0); None = 1 mm voxels, a volume's axes running to
            left, posterior and superior.
        description: goes into the header, at most 80 bytes of it.

    Raises:
        DataError: the array is empty, not 2D or 3D, not finite, or the affine is not an invertible 4x4 matrix.
    """
    values = _finite(path, array, dims=(2, 3))
    matrix = _affine(path, affine, values.ndim)
    if values.ndim == 2:
        values, matrix = values.T[:, :, None], matrix[:, [1, 0, 2, 3]]
    limits = np.iinfo(np.int16)
    whole = _all_integers(values) and limits.min <= values.min() and values.max() <= limits.max
    image = nib.nifti1.Nifti1Image(np.ascontiguousarray(values, dtype=np.int16 if whole else np.float32), matrix)
    image.set_sform(matrix, code=1)
    image.set_qform(matrix, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode("ascii", "replace")[:80]
    content = image.to_bytes()
    write_bytes(path, gzip.compress(content, compresslevel=1, mtime=0) if path.suffix == ".gz" else content)


def write_png(path: Path, array: Array, window: tuple[float, float], description: str = "") -> None:
    """Write [rows, cols] as an 8-bit grey PNG; `window` = (low, high) is clipped and mapped to 0 and 255.

    A `description` stands in the file as text.

    Raises:
        DataError: the array is empty, not 2D or not finite, or the window does not ascend.
    """
    values = _finite(path, array, dims=(2,))
    low, high = window
    if not low < high:
        raise DataError(f"{path.name}: window must be (low, high) with low < high, not {window}")
    grey = np.rint((np.clip(values, low, high) - low) / (high - low) * 255).astype(np.uint8)
    buffer = BytesIO()
    text = PngInfo()
    if description:
        text.add_itxt("Description", description)
    Image.fromarray(grey).save(buffer, format="PNG", pnginfo=text)
    write_bytes(path, buffer.getvalue())


def write_dicom(
    path: Path,
    array: Array,
    *,
    unit: str,
    spacing: tuple[float, float] | tuple[float, float, float],
    description: str,
    synthetic: bool,
    ids: DicomIds,
    place: SlicePlace | None = None,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write one slice as a DICOM Part 10 file, explicit VR little endian, 16 bits unsigned.

    Unit "HU" makes a CT image with slope 1 and intercept -1024: values are rounded, below -1024 clipped. Any other
    unit makes a secondary capture: integers in [0, 65535] are stored as they are, other values through a rescale
    slope and intercept that spread their range over 16 bits.

    Args:
        array: [rows, cols].
        spacing: mm between rows, between columns and (CT) between slices.
        description: the series' description; a synthetic one begins with "SYNTHETIC".
        synthetic: True says in the header that no patient is behind the image (identity removed, nothing burned in).
        place: where the slice lies; None = an axial slice at the origin.
        attributes: further elements by DICOM keyword, such as {"Manufacturer": "…", "PatientSex": "F"}.

    Raises:
        DataError: the array is empty, not 2D, not finite or above 32767 HU, or a spacing is not positive.
    """
    values = _finite(path, array, dims=(2,))
    if len(spacing) not in (2, 3) or not all(np.isfinite(mm) and mm > 0 for mm in spacing):
        raise DataError(f"{path.name}: spacing must be two or three positive numbers in mm, not {spacing}")
    dataset = _identified(ids, unit, synthetic, description)
    _add_pixels(dataset, path, values, unit)
    place = place or SlicePlace()
    dataset.InstanceNumber = str(place.number)
    dataset.PixelSpacing = [_decimal(spacing[0]), _decimal(spacing[1])]
    if unit == "HU":
        dataset.ImagePositionPatient = [_decimal(value) for value in place.position]
        dataset.ImageOrientationPatient = [_decimal(value) for value in place.orientation]
        dataset.SliceThickness = _decimal(spacing[2]) if len(spacing) == 3 else None
    for keyword, value in (attributes or {}).items():
        setattr(dataset, keyword, value)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    write_bytes(path, buffer.getvalue())


def write_dicom_series(
    folder: Path,
    volume: Array,
    affine: Floats | None = None,
    *,
    unit: str,
    description: str,
    synthetic: bool,
    ids: DicomIds,
    attributes: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a volume [X, Y, Z] as one CT file a slice along Z, `slice-0001.dcm` and on; return their paths in order.

    Pixel [row, col] of slice k is `volume[col, row, k]`; `affine` takes (x, y, z) to RAS mm (None as in `write_nifti`).

    Raises:
        DataError: as `write_dicom`; the volume is not 3D, the unit is not HU (a secondary capture holds no place), or
            the affine's axes are not at right angles (a tilted gantry cannot be written).
    """
    values = _finite(folder, volume, dims=(3,))
    if unit != "HU":
        raise DataError(f"{folder.name}: a DICOM series is written in HU only, not in {unit!r}; write NIfTI instead")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ _affine(folder, affine, 3)
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = lps[:3, :3] / sizes
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=1e-4):
        raise DataError(f"{folder.name}: the affine's axes are not at right angles; resample to a straight grid first")
    along_row, down_column = cosines[:, 0].tolist(), cosines[:, 1].tolist()
    paths = []
    for index in range(values.shape[2]):
        x, y, z = (lps @ [0.0, 0.0, index, 1.0])[:3].tolist()
        paths.append(folder / f"slice-{index + 1:04d}.dcm")
        write_dicom(
            paths[-1],
            values[:, :, index].T,
            unit=unit,
            spacing=(float(sizes[1]), float(sizes[0]), float(sizes[2])),
            description=description,
            synthetic=synthetic,
            ids=replace(ids, image=f"{ids.image}/{index + 1}"),
            place=SlicePlace((x, y, z), (*along_row, *down_column), index + 1),
            attributes=attributes,
        )
    return paths


def _identified(ids: DicomIds, unit: str, synthetic: bool, description: str) -> Dataset:
    """A data set with every element but the pixels and their place."""
    sop_class = CTImageStorage if unit == "HU" else SecondaryCaptureImageStorage
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = ids.image_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = ids.image_uid()
    dataset.StudyInstanceUID = ids.study_uid()
    dataset.SeriesInstanceUID = ids.series_uid()
    dataset.PatientID = dataset.PatientName = ids.patient_id
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        setattr(dataset, keyword, "")
    dataset.ReferringPhysicianName = dataset.Manufacturer = ""
    dataset.SeriesNumber = "1"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"] if unit == "HU" else ["DERIVED", "SECONDARY"]
    if unit == "HU":
        dataset.Modality = "CT"
        dataset.FrameOfReferenceUID = ids.frame_of_reference_uid()
        dataset.PositionReferenceIndicator = dataset.AcquisitionNumber = dataset.KVP = ""
    else:
        dataset.Modality = "OT"
        dataset.ConversionType = "SYN" if synthetic else "WSD"
    if synthetic:
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "Synthetic image: there is no patient"
        dataset.BurnedInAnnotation = "NO"
        description = description if description.startswith("SYNTHETIC") else f"SYNTHETIC {description}"
    dataset.SeriesDescription = description[:64]
    return dataset


def _add_pixels(dataset: Dataset, path: Path, numbers: Floats, unit: str) -> None:
    """Rescale `numbers` [rows, cols] to 16 bits unsigned and add them with the elements that describe them."""
    if unit == "HU":
        slope, intercept, numbers = 1.0, float(HU_OFFSET), np.maximum(numbers, HU_OFFSET)
        if numbers.max() > HIGHEST_HU:
            raise DataError(f"{path.name}: {numbers.max():g} HU is more than any CT holds; are the values HU?")
    elif _all_integers(numbers) and numbers.min() >= 0 and numbers.max() <= STORED_MAX:
        slope, intercept = 1.0, 0.0
    else:
        intercept = float(_decimal(numbers.min()))
        slope = float(_decimal((numbers.max() - intercept) / STORED_MAX)) or 1.0
    stored = np.clip(np.rint((numbers - intercept) / slope), 0, STORED_MAX).astype("<u2")
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RescaleIntercept, dataset.RescaleSlope = _decimal(intercept), _decimal(slope)
    dataset.RescaleType = "HU" if unit == "HU" else "US"
    dataset.PixelData = stored.tobytes()


def _finite(path: Path, array: Array, *, dims: tuple[int, ...]) -> Floats:
    values = np.asarray(array, dtype=np.float64)
    if values.ndim not in dims or values.size == 0:
        wanted = " or ".join(f"{count}D" for count in dims)
        raise DataError(f"{path.name}: the array has shape {values.shape}; this writer takes {wanted} images")
    if not np.isfinite(values).all():
        raise DataError(f"{path.name}: the array holds NaN or infinity; mend it before writing")
    return values


def _affine(path: Path, affine: Floats | None, dims: int) -> Floats:
    if affine is None:
        volume = np.diag([-1.0, -1.0, 1.0, 1.0])
        return volume if dims == 3 else volume[:, [1, 0, 2, 3]]
    matrix = np.asarray(affine, dtype=np.float64)
    bottom = [0.0, 0.0, 0.0, 1.0]
    good = matrix.shape == (4, 4) and np.isfinite(matrix).all() and bool(np.all(matrix[3] == bottom))
    if not good or abs(np.linalg.det(matrix)) < 1e-9:
        raise DataError(f"{path.name}: the affine must be an invertible 4x4 matrix with last row {bottom}")
    return matrix


def _all_integers(values: Floats) -> bool:
    return bool(np.all(values == np.rint(values)))


def _decimal(value: float | np.floating) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return pydicom.valuerep.format_number_as_ds(float(value))
