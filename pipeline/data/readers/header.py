"""DICOM headers: the parsed file, its facts as text, and the place of a slice in the patient."""

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
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.core.errors import UnreadableImage

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
    "ConvolutionKernel": "CTReconstructionSequence",
    "KVP": "CTXRayDetailsSequence",
    "FrameType": "CTImageFrameTypeSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "FrameAcquisitionDateTime": "FrameContentSequence",
    "StackID": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "NominalPercentageOfCardiacPhase": "CardiacSynchronizationSequence",
}
_AGE_UNITS = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}  # how many make a year
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
    except BaseException as error:
        if (
            not isinstance(error, Exception) and type(error).__name__ != "PanicException"
        ):  # a decoder's, written in Rust
            raise
        reason = (
            f"{what} cannot be decoded ({type(error).__name__}): the file is damaged, cut short or oddly compressed, "
        )
        raise UnreadableImage(path, reason + "export it again without compression") from None


def attribute(dataset: Dataset, keyword: str, frame: int = 0) -> Any:
    """A value for one frame: from its functional group, else the shared one, else the top level; None if nowhere."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[frame : frame + 1], *shared[:1]) if keyword in _GROUPS else ():
        items = group.get(_GROUPS[keyword]) or []
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    value = dataset.get(keyword)
    return None if value is None or value == "" else value


def header_facts(dataset: Dataset) -> dict[str, str]:
    """The text facts of `Image.meta` that a DICOM header states."""
    facts = {name: text_of(dataset.get(keyword)) for name, keyword in _TEXTS.items()}
    facts |= {name: facts[name].upper() for name in ("photometric", "sex")}
    facts["modality"] = "CT" if is_ct(dataset) else facts["modality"].upper()
    with suppress(ValueError, TypeError):  # a fact that nothing depends on may be malformed
        facts["slice_thickness_mm"] = f"{float(attribute(dataset, 'SliceThickness')):g}"
    facts["age"] = _years(text_of(dataset.get("PatientAge")))
    facts["spacing_known"] = "false" if pixel_spacing(dataset) is None else "true"
    return {name: value for name, value in facts.items() if value}


def is_ct(dataset: Dataset) -> bool:
    """Whether the file says that it is a CT image."""
    modality = text_of(dataset.get("Modality")).upper()
    return modality == "CT" or (not modality and text_of(dataset.get("SOPClassUID")) in _CT_STORAGE)


def refuse_localizer(path: Path, dataset: Dataset) -> None:
    """Raise `UnreadableImage` for a CT scout view."""
    if is_ct(dataset) and "LOCALIZER" in text_of(dataset.get("ImageType")).upper():
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


def misplaced_by(dataset: Dataset, frame: int = 0) -> str:
    """Which tags keep `find_plane` from placing a slice: those that are missing, else those that make no sense."""
    tags = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
    values = {tag: attribute(dataset, tag, frame) for tag in tags}
    missing = [tag for tag, value in values.items() if value is None]
    if missing:
        return f"{' and '.join(missing)} missing"
    wrong = [tag for tag, count in tags.items() if isinstance(values[tag], str) or len(values[tag]) != count]
    return f"{' and '.join(wrong or ['ImagePositionPatient or ImageOrientationPatient'])} not usable"


def text_of(value: Any) -> str:
    """A header value as stripped text; several values are joined by a slash, a missing one is empty."""
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
