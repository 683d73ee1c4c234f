"""Single DICOM files: header facts, pixel values in Hounsfield units or grey levels, and the place in the patient."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scipy import ndimage

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.image import Image, grey, require_finite

AIR_HU = -1024.0
"""The lowest value kept in a CT: scanners write padding outside the field of view at or below it."""

_TEXTS = {
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "kernel": "ConvolutionKernel",
    "study_id": "StudyInstanceUID",
    "series_id": "SeriesInstanceUID",
    "sop_instance_id": "SOPInstanceUID",
    "patient_id": "PatientID",
    "sex": "PatientSex",
    "photometric": "PhotometricInterpretation",
}
_GROUPS = {  # where a multi-frame file of the enhanced kind keeps what older files have at the top (PS3.3 C.7.6.16)
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
}
_AGE_UNITS = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}  # how many make a year
_HU_RESCALE_TYPES = ("", "HU", "HU_MOD", "US")  # US: unspecified, which in a plain CT means HU
_CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")


@dataclass(frozen=True)
class Plane:
    """Where one slice lies. Positions and directions are DICOM's: LPS, mm.

    Attributes:
        position: centre of the first pixel.
        along_columns: unit vector in which the column index grows (DICOM's "row direction").
        along_rows: unit vector in which the row index grows.
        pixel_mm: distance between rows, distance between columns.
    """

    position: NDArray[np.float64]
    along_columns: NDArray[np.float64]
    along_rows: NDArray[np.float64]
    pixel_mm: tuple[float, float]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector out of the slice, towards the head in an ordinary axial CT."""
        return np.cross(self.along_columns, self.along_rows)


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
        values = frame_values(path, dataset, stored_frames(path, dataset)[0], 0)
        meta = header_facts(dataset)
        mm = pixel_spacing(dataset)
        plane = find_plane(dataset)
        affine = np.diag([*(mm or (1.0, 1.0)), 1.0, 1.0]) if plane is None else _plane_affine(plane, meta)
    unit = "HU" if is_ct(dataset) else "none"
    return Image(values[None], affine, mm or (1.0, 1.0), unit, meta)


def load(path: Path, *, pixels: bool) -> Dataset:
    """The parsed file, without a word on the console.

    Raises:
        UnreadableImage: the file cannot be parsed.
    """
    with decoding(path, "the header"):
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=not pixels)
        if len(dataset) == 0:
            raise UnreadableImage(
                path, "no DICOM elements can be read: the file is damaged or cut short, copy it again"
            )
        if "TransferSyntaxUID" not in dataset.file_meta:  # files of before 1996, or with their head cut off
            implicit, little = dataset.original_encoding
            plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Silence pydicom, and turn whatever a damaged file makes it raise into `UnreadableImage`.

    pydicom's own text is not passed on, since it may quote the patient's name.
    """
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:
        reason = (
            f"{what} cannot be decoded ({type(error).__name__}): the file is damaged, cut short or oddly compressed, "
        )
        raise UnreadableImage(path, reason + "export it again without compression") from None


def attribute(dataset: Dataset, keyword: str, frame: int = 0) -> Any:
    """A value for one frame: from its functional group, else the shared one, else the top level; None if nowhere."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[frame : frame + 1], *shared[:1]):
        items = group.get(_GROUPS[keyword]) or []
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    value = dataset.get(keyword)
    return None if value is None or value == "" else value


def header_facts(dataset: Dataset) -> dict[str, str]:
    """The text facts of `Image.meta` that a DICOM header states."""
    facts = {name: _text(dataset.get(keyword)) for name, keyword in _TEXTS.items()}
    with suppress(ValueError, TypeError):  # a fact that nothing depends on may be malformed
        facts["slice_thickness_mm"] = f"{float(attribute(dataset, 'SliceThickness')):g}"
    facts["age"] = _years(_text(dataset.get("PatientAge")))
    facts["spacing_known"] = "false" if pixel_spacing(dataset) is None else "true"
    return {name: value for name, value in facts.items() if value}


def is_ct(dataset: Dataset) -> bool:
    """Whether the file says that it is a CT image."""
    modality = _text(dataset.get("Modality"))
    return modality == "CT" or (not modality and _text(dataset.get("SOPClassUID")) in _CT_STORAGE)


def refuse_localizer(path: Path, dataset: Dataset) -> None:
    """Raise `UnreadableImage` for a CT scout view."""
    if is_ct(dataset) and "LOCALIZER" in _text(dataset.get("ImageType")).upper():
        raise UnreadableImage(path, "this is a CT localizer (scout view), not a slice: leave it out")


def pixel_spacing(dataset: Dataset, frame: int = 0) -> tuple[float, float] | None:
    """Distance in mm between rows and between columns, or None where the file does not say.

    X-ray files often state only the spacing at the detector (ImagerPixelSpacing), which is then used: it is larger
    than in the patient by the magnification, some 5 to 15 %.
    """
    for value in (attribute(dataset, "PixelSpacing", frame), dataset.get("ImagerPixelSpacing")):
        if value is not None and not isinstance(value, str) and len(value) == 2:
            rows_mm, columns_mm = float(value[0]), float(value[1])
            if 0 < rows_mm < np.inf and 0 < columns_mm < np.inf:
                return rows_mm, columns_mm
    return None


def find_plane(dataset: Dataset, frame: int = 0) -> Plane | None:
    """The slice's place, or None where position, orientation or spacing are missing or make no sense."""
    position = attribute(dataset, "ImagePositionPatient", frame)
    orientation = attribute(dataset, "ImageOrientationPatient", frame)
    mm = pixel_spacing(dataset, frame)
    if position is None or orientation is None or mm is None or len(position) != 3 or len(orientation) != 6:
        return None
    origin = np.array([float(value) for value in position])
    axes = np.array([float(value) for value in orientation]).reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1)
    usable = np.isfinite(origin).all() and np.abs(lengths - 1).max() < 0.01 and abs(axes[0] @ axes[1]) < 0.01
    return Plane(origin, axes[0] / lengths[0], axes[1] / lengths[1], mm) if usable else None


def stored_frames(path: Path, dataset: Dataset) -> NDArray[Any]:
    """The stored numbers of all frames, [frames, rows, cols], colour turned to grey. Call it inside `decoding`.

    Raises:
        UnreadableImage: no pixels, a codec that is not installed, fewer bytes than the image needs, NaN.
    """
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = _text(dataset.get("Modality")) or "unknown modality"
        reason = f"this DICOM object ({kind}) holds no pixels: leave it out if it is a report or contours, "
        raise UnreadableImage(path, reason + "copy it again if it should be an image")
    _require_codec(path, dataset)
    _require_all_bytes(path, dataset)
    array: NDArray[Any] = dataset.pixel_array
    photometric = _text(dataset.get("PhotometricInterpretation"))
    if photometric == "PALETTE COLOR":
        array = apply_color_lut(array, dataset)
    if int(dataset.SamplesPerPixel) > 1 or photometric == "PALETTE COLOR":
        array = grey(path, array)
    array = array.reshape(-1, *array.shape[-2:])
    require_finite(path, array)
    return array


def frame_values(path: Path, dataset: Dataset, stored: NDArray[Any], frame: int) -> NDArray[np.float32]:
    """Physical values of one frame [rows, cols]: HU for CT, else the modality LUT's values, high = bright.

    A CT marked MONOCHROME1 is not inverted, since its Hounsfield units do not depend on how it is shown.

    Raises:
        UnreadableImage: a CT without a usable rescale to Hounsfield units.
    """
    padding = _padding(dataset, stored)
    if is_ct(dataset):
        slope, intercept = _rescale(path, dataset, frame)
        values = stored.astype(np.float64) * slope + intercept
        values[padding] = AIR_HU
        values = np.maximum(values, AIR_HU)
    else:
        if _text(dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
            bits = int(dataset.BitsStored)
            signed = int(dataset.get("PixelRepresentation") or 0)
            stored = (-1 if signed else 2**bits - 1) - stored.astype(np.int64)
        values = _modality_values(dataset, stored, frame)
        if padding.any() and not padding.all():
            values[padding] = values[~padding].min()
    require_finite(path, values)
    return values.astype(np.float32)


def _rescale(path: Path, dataset: Dataset, frame: int) -> tuple[float, float]:
    slope = attribute(dataset, "RescaleSlope", frame)
    intercept = attribute(dataset, "RescaleIntercept", frame)
    if slope is None or intercept is None:
        reason = "this CT states no rescale slope and intercept, so its Hounsfield units are unknown: "
        raise UnreadableImage(path, reason + "export the original slices, not screenshots or secondary captures")
    kind = _text(attribute(dataset, "RescaleType", frame)).upper()
    if kind not in _HU_RESCALE_TYPES:
        reason = f"this CT is in {kind}, not in Hounsfield units (a map computed from it?): use the HU reconstruction"
        raise UnreadableImage(path, reason)
    pair = float(slope), float(intercept)
    if pair[0] == 0 or not np.isfinite(pair).all():
        raise UnreadableImage(
            path, f"the rescale slope {pair[0]} and intercept {pair[1]} are not usable: export it again"
        )
    return pair


def _modality_values(dataset: Dataset, stored: NDArray[Any], frame: int) -> NDArray[np.float64]:
    if dataset.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    slope = attribute(dataset, "RescaleSlope", frame)
    intercept = attribute(dataset, "RescaleIntercept", frame)
    return stored.astype(np.float64) * float(1 if slope is None else slope) + float(intercept or 0)


def _padding(dataset: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels with the padding value that are joined to the border [rows, cols].

    The same number inside the body is a measurement: some files name 0 as padding and have 0 HU in the patient.
    """
    if dataset.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, dtype=bool)
    bits = int(dataset.BitsAllocated)
    ends = [int(dataset.PixelPaddingValue), int(dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue))]
    if int(dataset.get("PixelRepresentation") or 0):  # often written unsigned: 63536 stands for -2000
        ends = [(end + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for end in ends]
    marked = (stored >= min(ends)) & (stored <= max(ends))
    regions, _ = ndimage.label(marked)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return np.isin(regions, border[border > 0])


def _require_codec(path: Path, dataset: Dataset) -> None:
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        reason = f"no decoder is installed for {syntax.name}: install pylibjpeg with pylibjpeg-libjpeg, "
        raise UnreadableImage(path, reason + "pylibjpeg-openjpeg and pylibjpeg-rle, or export it uncompressed")


def _require_all_bytes(path: Path, dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        return
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if rows == 0 or columns == 0 or not dataset.PixelData:
        raise UnreadableImage(path, f"the image is empty ({rows} rows, {columns} columns): export it again")
    if UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
        return
    samples = int(dataset.SamplesPerPixel)
    if _text(dataset.PhotometricInterpretation) == "YBR_FULL_422":
        samples = 2
    bits = rows * columns * samples * int(dataset.BitsAllocated) * int(dataset.get("NumberOfFrames") or 1)
    have, need = len(dataset.PixelData), (bits + 7) // 8
    if have < need:
        reason = f"the pixel data is cut short ({have} of {need} bytes): copy or export the file again"
        raise UnreadableImage(path, reason)


def _plane_affine(plane: Plane, meta: dict[str, str]) -> NDArray[np.float64]:
    """Index (row, col, 0) to RAS mm; the third axis is the slice normal, as long as the slice is thick."""
    thickness = float(meta.get("slice_thickness_mm", 1.0))
    affine = np.eye(4)
    affine[:3, 0] = plane.along_rows * plane.pixel_mm[0]
    affine[:3, 1] = plane.along_columns * plane.pixel_mm[1]
    affine[:3, 2] = plane.normal * (thickness if 0 < thickness < np.inf else 1.0)
    affine[:3, 3] = plane.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    parts = value if hasattr(value, "__iter__") else [value]
    return "/".join(str(part).strip() for part in parts)


def _years(age: str) -> str:
    """DICOM's age text (`063Y`, `006M`) in years (`63`, `0.5`); nothing where it is not such a text."""
    number, unit = age[:-1], age[-1:].upper()
    if unit not in _AGE_UNITS or not number.isdigit():
        return ""
    return f"{int(number) / _AGE_UNITS[unit]:.3g}"
