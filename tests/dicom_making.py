"""Small made-up DICOM files and series for tests: axial CT, invented patients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = [1, 0, 0, 0, 1, 0]


def write_slice(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    """A CT slice of stored numbers (int16: HU as they are; uint16: HU + 1024); a tag given as None is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = 8 * pixels.dtype.itemsize
    facts: dict[str, Any] = {
        "SOPClassUID": CT_STORAGE,
        "SOPInstanceUID": pydicom.uid.generate_uid(),
        "SeriesInstanceUID": "1.2.3",
        "Modality": "CT",
        "PatientName": "Secretname^Anna",
        "PatientID": "P-77",
        "RescaleSlope": 1,
        "RescaleIntercept": 0 if pixels.dtype.kind == "i" else -1024,
        "PixelSpacing": [1, 1],
        "ImageOrientationPatient": AXIAL,
        "ImagePositionPatient": [0, 0, 0],
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "SamplesPerPixel": 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2),
        **tags,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in facts.items():
            if value is not None:
                setattr(dataset, keyword, value)
        meta.MediaStorageSOPClassUID = facts["SOPClassUID"]
        meta.MediaStorageSOPInstanceUID = facts["SOPInstanceUID"]
        dataset.save_as(path, enforce_file_format=True)
    return path


def smooth_volume(count: int, seed: int = 0) -> np.ndarray:
    """[slices, 8, 9] int16 HU that change little from slice to slice, with air and soft tissue."""
    random = np.random.default_rng(seed)
    plane = random.integers(-900, 900, (8, 9))
    return np.stack([plane + 3 * number + random.integers(-4, 5, plane.shape) for number in range(count)]).astype("<i2")


def write_volume(folder: Path, volume: np.ndarray, **tags: Any) -> Path:
    """One series, 2 mm a slice; a tag may be a function of the slice's number."""
    for number, pixels in enumerate(volume):
        facts: dict[str, Any] = {"ImagePositionPatient": [0, 0, 2 * number], "InstanceNumber": number + 1, **tags}
        made = {key: value(number) if isinstance(value, Callable) else value for key, value in facts.items()}
        write_slice(folder / f"s{number:03d}.dcm", pixels, **made)
    return folder
