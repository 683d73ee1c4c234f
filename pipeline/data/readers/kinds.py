"""What kind of file it is, told by its first bytes and never by its name's ending."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

from pipeline.core.errors import UnreadableImage

_HEAD_BYTES = 352  # the NIfTI-1 header and its extension flag: enough for every kind told apart here


def sniff(path: Path) -> str:
    """Tell the kind of a file by its first bytes: `dicom`, `nifti`, `png`, `jpeg`, `npy` or `unknown`.

    Raises:
        UnreadableImage: the file is missing or may not be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UnreadableImage(path, f"the file cannot be opened ({error.strerror}): check the path") from error
    if head.startswith(b"\x1f\x8b"):
        return "nifti" if _is_nifti(_gunzipped_head(path)) else "unknown"
    if head[128:132] == b"DICM":
        return "dicom"
    for magic, kind in ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"\x93NUMPY", "npy")):
        if head.startswith(magic):
            return kind
    if _is_nifti(head):
        return "nifti"
    return "dicom" if _is_bare_dicom(head) else "unknown"


def _gunzipped_head(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_nifti(head: bytes) -> bool:
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _is_bare_dicom(head: bytes) -> bool:
    """Whether the bytes begin with a DICOM element of group 0002 or 0008: old files come without preamble."""
    if len(head) < 8 or head[0:2] not in (b"\x08\0", b"\x02\0", b"\0\x08", b"\0\x02"):
        return False
    order: Literal["little", "big"] = "little" if head[1] == 0 else "big"
    element = int.from_bytes(head[2:4], order)
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return element <= 0x0100 and (explicit or int.from_bytes(head[4:8], order) <= 0x0100)
