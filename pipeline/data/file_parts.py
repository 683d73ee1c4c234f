"""All that stands in a file, taken apart: what is compressed is unpacked, and text is told from numbers."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import pydicom
from pydicom.dataelem import DataElement
from pydicom.uid import ExplicitVRLittleEndian

_TEXT = (".md", ".txt", ".json", ".csv")
_PNG = b"\x89PNG\r\n\x1a\n"
_NIFTI_HEADER = 352
_SAFETENSORS_HEADER = 8
_IDENTITY = frozenset(
    ("PatientID", "PatientName", "OtherPatientIDs", "OtherPatientNames", "IssuerOfPatientID", "AccessionNumber",
     "StudyID", "ReferringPhysicianName", "InstitutionName", "SeriesDescription", "StudyDescription")
)  # fmt: skip
"""Elements whose whole value may be a short id."""


@dataclass(frozen=True)
class Part:
    """A part of a file.

    Attributes:
        where: in words, such as `element PatientID`.
        kind: `value`: text that may as a whole be an id; `text`; `bytes`: all else.
    """

    where: str
    content: bytes
    kind: Literal["value", "text", "bytes"]


def parts_of(path: Path) -> Iterator[Part]:
    """All bytes of the file `path`, and once more what is packed or marked as text in it."""
    content = path.read_bytes()
    yield Part("bytes", content, "text" if path.suffix in _TEXT else "bytes")
    if content.startswith(_PNG):
        yield from _png_parts(content)
    elif path.suffix == ".gz":
        unpacked = gzip.decompress(content)
        yield Part("header of gzip", content[:512], "text")
        yield Part("header of NIfTI", unpacked[:_NIFTI_HEADER], "text")
        yield Part("unpacked", unpacked, "bytes")
    elif path.suffix == ".safetensors":
        (length,) = struct.unpack("<Q", content[:_SAFETENSORS_HEADER])
        yield Part("header", content[_SAFETENSORS_HEADER : _SAFETENSORS_HEADER + length], "text")
    elif path.suffix == ".dcm":
        yield from _dicom_parts(content)


def dicom_marks(path: Path) -> list[str]:
    """What the DICOM file `path` lacks of the marks of a synthetic image, in words; nothing where it has them all."""
    try:
        dataset = pydicom.dcmread(path)
    except (pydicom.errors.InvalidDicomError, OSError, ValueError, EOFError):
        return ["it cannot be read"]
    wanted = {
        "Synthetic Data is not YES": dataset.get("SyntheticData") == "YES",
        "Image Type does not begin with DERIVED": next(iter(dataset.get("ImageType") or [""])) == "DERIVED",
        "Burned In Annotation is not NO": dataset.get("BurnedInAnnotation") == "NO",
        "Patient Identity Removed is not YES": dataset.get("PatientIdentityRemoved") == "YES",
        "Patient ID is not a synthetic one": str(dataset.get("PatientID", "")).startswith("SYN-"),
        "it names no generator": bool(dataset.get("ContributingEquipmentSequence")),
        "it is not explicit VR little endian": dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian,
        "it holds private elements": not any(one.tag.is_private for one in dataset.iterall()),
    }
    return [why for why, met in wanted.items() if not met]


def _png_parts(content: bytes) -> Iterator[Part]:
    """Text chunks (PNG 1.2, 11.3.4), unpacked, and the unpacked image."""
    place, pixels = len(_PNG), b""
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        body = content[place + 8 : place + 8 + length]
        place += length + 12
        if kind == b"IDAT":
            pixels += body
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            for value in _png_text(kind, body):
                yield Part("text of PNG", value, "value")
        elif kind not in (b"IHDR", b"IEND"):
            yield Part(f"chunk {kind.decode('ascii', 'replace')} of PNG", body, "text")
    yield Part("unpacked pixels", _inflated(pixels), "bytes")


def _png_text(kind: bytes, body: bytes) -> list[bytes]:
    keyword, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return [keyword, rest]
    if kind == b"zTXt":
        return [keyword, _inflated(rest[1:])]
    packed, rest = rest[:1] == b"\1", rest[2:]
    language, _, rest = rest.partition(b"\0")
    translated, _, text = rest.partition(b"\0")
    return [keyword, language, translated, _inflated(text) if packed else text]


def _inflated(packed: bytes) -> bytes:
    """`packed` unpacked, as far as it goes."""
    try:
        return zlib.decompressobj().decompress(packed)
    except zlib.error:
        return b""


def _dicom_parts(content: bytes) -> Iterator[Part]:
    dataset = pydicom.dcmread(BytesIO(content), force=True)
    for one in (*dataset.file_meta.elements(), *dataset.iterall()):
        if isinstance(one, DataElement) and isinstance(one.value, str | pydicom.valuerep.PersonName):
            kind: Literal["value", "text"] = "value" if one.keyword in _IDENTITY or one.VR == "PN" else "text"
            yield Part(f"element {one.keyword or one.tag}", str(one.value).encode(), kind)
