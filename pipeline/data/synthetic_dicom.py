"""Synthetic images as DICOM that says so: CT Image Storage for HU, Digital X-Ray (For Presentation) for X-rays.

The modules are those of DICOM PS3.3 A.3 (CT), A.26 (DX) and A.8.1 (Secondary Capture, for what is neither). Explicit VR
little endian: programs whose dictionary is older than Synthetic Data (0008,001C) cannot read it in implicit VR. No
date, time or number stands in a header but what follows from the image, so that the same image makes the same file.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from pipeline.core.errors import DataError
from pipeline.core.files import write_bytes
from pipeline.data.batches.scaling import Scaling

SYNTHETIC_PATIENT = "SYN-"
"""Patient ids begin with it."""
HU_OFFSET = -1024
_AXIAL = ("1", "0", "0", "0", "1", "0")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://radaug.invalid/synthetic-dicom")


@dataclass(frozen=True)
class DicomOrigin:
    """Where a synthetic image comes from, and how its headers shall be written.

    Attributes:
        name: of the image, such as `synthetic-normal-00012`.
        label: its class.
        sample_seed, truncation_psi, weights_digest: by which its generator made it. UIDs follow from them.
        family: of the generator.
        uid_root: that new UIDs begin with, of one's own organisation; "" = UUIDs below 2.25.
        remark: begins the descriptions and comments, such as `NOT RELEASED`.
        orientation: where the rows and columns of an X-ray run to, such as ("L", "F").
        x_ray: whether a 2D image without a unit shows what an X-ray shows; a CT that lost its HU does not.
    """

    name: str
    label: str
    sample_seed: str
    truncation_psi: str
    weights_digest: str
    family: str
    uid_root: str = ""
    remark: str = ""
    orientation: tuple[str, str] = ("L", "F")
    x_ray: bool = True

    @property
    def patient_id(self) -> str:
        return SYNTHETIC_PATIENT + sha256("/".join(self._sources("patient")).encode()).hexdigest()[:16]

    def uid(self, what: str) -> UID:
        """A new UID for `what` of this image, the same whenever it is written again."""
        if self.uid_root:
            return generate_uid(prefix=f"{self.uid_root}.", entropy_srcs=self._sources(what))
        return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(self._sources(what))).int}")

    def _sources(self, what: str) -> list[str]:
        return [what, self.weights_digest, self.label, self.sample_seed, self.truncation_psi]


def write_synthetic_dicom(
    stem: Path, image: NDArray[np.floating], scaling: Scaling, spacing: Sequence[float], origin: DicomOrigin
) -> list[Path]:
    """Write `STEM.dcm`, or for a volume a folder STEM with one CT slice a file; give the files in order.

    HU are rounded and stored with slope 1 and intercept -1024. Of other images 8-bit ones are stored as they are, and
    the window of all others is spread over 16 bits: a DX image has slope 1 and intercept 0.

    Args:
        image: [rows, cols], or [X, Y, Z] in RAS+, in physical values.
        spacing: mm on each axis.

    Raises:
        DataError: a volume is not in HU: DICOM has no class for it.
    """
    if image.ndim == 3:
        if scaling.unit != "HU":
            raise DataError(f"{stem.name}: volumes without a unit have no class in DICOM; use nifti.")
        return _series(stem, image, scaling, spacing, origin)
    path = stem.with_name(f"{stem.name}.dcm")
    if scaling.unit == "HU":
        dataset = _ct(image, scaling, origin, 1)
        _place(dataset, (0.0, 0.0, 0.0), (spacing[0], spacing[1]), None)
    else:
        dataset = _x_ray(image, scaling, origin) if origin.x_ray else _capture(image, scaling, origin)
        dataset.PixelSpacing = [_decimal(mm) for mm in spacing]
        if origin.x_ray:  # equal, and so no calibration: programs read the one or the other
            dataset.ImagerPixelSpacing = dataset.PixelSpacing
    _save(path, dataset)
    return [path]


def _series(
    folder: Path, volume: NDArray[np.floating], scaling: Scaling, spacing: Sequence[float], origin: DicomOrigin
) -> list[Path]:
    """Axial slices from feet to head, as they are usually shown: columns run to the left, rows to posterior."""
    shown = volume[::-1, ::-1]
    right, front = (-mm * (side - 1) for mm, side in zip(spacing[:2], volume.shape[:2], strict=True))
    paths = []
    for index in range(volume.shape[2]):
        dataset = _ct(shown[:, :, index].T, scaling, origin, index + 1)
        _place(dataset, (right, front, spacing[2] * index), (spacing[1], spacing[0]), spacing[2])
        paths.append(folder / f"slice-{index + 1:04d}.dcm")
        _save(paths[-1], dataset)
    return paths


def _ct(image: NDArray[np.floating], scaling: Scaling, origin: DicomOrigin, number: int) -> Dataset:
    dataset = _identified(origin, CTImageStorage, "CT", number)
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.FrameOfReferenceUID = origin.uid("frame of reference")
    dataset.PatientPosition, dataset.ImageLaterality = "HFS", "U"  # of an unpaired body part
    dataset.PositionReferenceIndicator = dataset.AcquisitionNumber = dataset.KVP = ""
    stored = np.clip(np.rint(image) - HU_OFFSET, 0, 65535).astype("<u2")
    _add_pixels(dataset, stored, 16)
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(HU_OFFSET), "1", "HU"
    low, high = scaling.window
    dataset.WindowCenter, dataset.WindowWidth = _decimal((low + high) / 2), _decimal(high - low)
    return dataset


def _place(dataset: Dataset, position: Sequence[float], spacing: tuple[float, float], thickness: float | None) -> None:
    """Where a slice lies: LPS mm of its first pixel's centre, mm between rows and between columns."""
    dataset.ImagePositionPatient = [_decimal(mm) for mm in position]
    dataset.ImageOrientationPatient = list(_AXIAL)
    dataset.PixelSpacing = [_decimal(mm) for mm in spacing]
    dataset.SliceThickness = None if thickness is None else _decimal(thickness)
    if thickness is not None:
        dataset.SpacingBetweenSlices = _decimal(thickness)


def _x_ray(image: NDArray[np.floating], scaling: Scaling, origin: DicomOrigin) -> Dataset:
    dataset = _identified(origin, DigitalXRayImageStorageForPresentation, "DX", 1)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PatientOrientation = list(origin.orientation)
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = dataset.AcquisitionContextSequence = []
    dataset.DetectorType = ""
    _add_grey(dataset, image, scaling)
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1  # bone is bright
    dataset.PresentationLUTShape = "IDENTITY"
    return dataset


def _capture(image: NDArray[np.floating], scaling: Scaling, origin: DicomOrigin) -> Dataset:
    dataset = _identified(origin, SecondaryCaptureImageStorage, "OT", 1)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.ConversionType = "SYN"
    dataset.ImageLaterality = "U"
    dataset.PatientOrientation = ""
    _add_grey(dataset, image, scaling)
    return dataset


def _add_grey(dataset: Dataset, image: NDArray[np.floating], scaling: Scaling) -> None:
    """8-bit images as they are; of all others the window over 16 bits."""
    bits = 8 if scaling.dtype == "uint8" else 16
    low, high = (0.0, 255.0) if bits == 8 else scaling.window
    most = 2**bits - 1
    stored = np.rint((np.clip(image, low, high) - low) / (high - low) * most).astype("<u1" if bits == 8 else "<u2")
    _add_pixels(dataset, stored, bits)
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.WindowCenter, dataset.WindowWidth = str((most + 1) // 2), str(most + 1)


def _identified(origin: DicomOrigin, sop_class: UID, modality: str, number: int) -> Dataset:
    """A data set with what both classes have: nobody's name, new UIDs, and the marks of a synthetic image."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = origin.uid(f"image {number}")
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SyntheticData = "YES"
    dataset.Modality = modality
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = origin.uid("study"), origin.uid("series")
    dataset.PatientID = origin.patient_id
    dataset.PatientName = f"SYNTHETIC^{origin.patient_id}"
    said = f"{origin.remark} SYNTHETIC".strip()
    dataset.PatientComments = f"{said}: no such patient exists."
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Synthetic image: there is no patient"
    empty = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
    for keyword in (*empty, "ReferringPhysicianName"):
        setattr(dataset, keyword, "")
    dataset.StudyDescription = said
    dataset.SeriesDescription = f"{said} {origin.label}"[:64]
    dataset.SeriesNumber, dataset.InstanceNumber = "1", str(number)
    dataset.Manufacturer, dataset.ManufacturerModelName = "radaug", f"radaug {origin.family}"
    dataset.SoftwareVersions = version("radaug")
    dataset.ImageComments = f"{said} image {origin.name} of class {origin.label}. Not for diagnosis."
    dataset.DerivationDescription = f"Made by a generative network ({origin.family}); not acquired from a patient."
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    dataset.ContributingEquipmentSequence = [_equipment(origin)]
    return dataset


def _equipment(origin: DicomOrigin) -> Dataset:
    """The generator. DICOM PS3.16 has no code for one in CID 7005; processing equipment is the nearest."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    equipment.Manufacturer, equipment.ManufacturerModelName = "radaug", f"radaug {origin.family}"
    equipment.SoftwareVersions = version("radaug")
    equipment.ContributionDescription = (
        f"Generator {origin.family}, weights sha256 {origin.weights_digest}, sample seed {origin.sample_seed}, "
        f"truncation {origin.truncation_psi}"
    )
    return equipment


def _add_pixels(dataset: Dataset, stored: NDArray[np.unsignedinteger], bits: int) -> None:
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    content = stored.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"


def _save(path: Path, dataset: Dataset) -> None:
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    write_bytes(path, buffer.getvalue())


def _decimal(value: float) -> str:
    return format_number_as_ds(float(value))
