"""DICOM objects as a PACS asks for, sends and takes them. What talks to it lies in `flows.pacs`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.config.by_name import or_nearest
from pipeline.core.errors import UnreadableImage, UserError
from pipeline.data.looking import MODALITIES
from pipeline.data.readers.header import load

_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # and for processing
    "1.2.840.10008.5.1.4.1.1.1.2",  # Mammography, for presentation
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    "1.2.840.10008.5.1.4.1.1.7.2",  # multi-frame, grey, bytes
    "1.2.840.10008.5.1.4.1.1.7.3",  # and words
    "1.2.840.10008.5.1.4.1.1.12.1",  # X-Ray Angiography
    "1.2.840.10008.5.1.4.1.1.12.2",  # Radiofluoroscopy
)
_SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless,
    JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit,
)  # fmt: skip
STORED = tuple((UID(one), syntax) for one in _CLASSES for syntax in _SYNTAXES)
"""Classes and transfer syntaxes of CT and X-ray images that can be received: 99, of the 128 that an association has."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_KEYWORDS = ("PatientID", "StudyDate", "StudyInstanceUID", "AccessionNumber", "ModalitiesInStudy", "StudyDescription")


@dataclass(frozen=True)
class Ids:
    """Which object a file holds."""

    study: str
    series: str
    instance: str


def ids_of(dataset: Dataset) -> Ids:
    """The three UIDs of an object.

    Raises:
        UserError: one is missing or is no UID, so that no file may be named by it.
    """
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return Ids(*(checked_uid(str(dataset.get(name, ""))) for name in names))


def checked_uid(text: str) -> str:
    """`text`, which names files and folders.

    Raises:
        UserError: it is no DICOM UID.
    """
    text = text.strip("\0 ")
    if len(text) > 64 or not _UID.fullmatch(text):
        raise UserError("the PACS sent an object whose UIDs are missing or malformed. Have it mended there.")
    return text


def read_object(path: Path) -> Dataset:
    """The DICOM object in the file `path`, pixels and all.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return load(path, pixels=True)
    except UnreadableImage as error:
        raise UserError(str(error)) from error


def write_object(dataset: Dataset, path: Path) -> None:
    """Write an object that was received, with its file header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def identifier(level: str, keys: Mapping[str, str]) -> Dataset:
    """What C-FIND, C-GET and C-MOVE are asked by; an empty value asks for the key."""
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    for name, value in keys.items():
        setattr(dataset, name, value)
    return dataset


def read_filters(where: Mapping[str, str]) -> dict[str, str]:
    """What studies are looked for by.

    Raises:
        UserError: a name is no DICOM keyword.
    """
    for name in where:
        if tag_for_keyword(name) is None:
            raise UserError(f"--where {name}: is no DICOM keyword{or_nearest(name, _KEYWORDS)}.")
    return dict(where)


def is_wanted(modality: str) -> bool:
    """Whether radaug can use images of this modality; reports, segmentations and MR stay where they are."""
    return modality.strip().upper() in MODALITIES


def json_value(row: Mapping[str, Any], tag: str) -> str:
    """The first value of an element in DICOM's JSON; empty where there is none."""
    return str((row.get(tag, {}).get("Value") or [""])[0])
