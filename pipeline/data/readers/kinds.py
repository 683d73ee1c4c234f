"""What kind of file it is, told by its first bytes and never by its name's ending."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

from pipeline.core.errors import UnreadableImage

_HEAD_BYTES = 352  # the NIfTI-1 header and its extension flag: enough for every kind told apart here
PLAIN_TEXT = "this is plain text, not an image: check the path, and whether the file is a pointer to another one"
_AGAIN = "copy or download it again"
_LFS = b"version https://git-lfs.github.com/spec/"
_OTHERS = (  # first bytes of what is given for an image by mistake, what it is, and the mend
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"PK\x05\x06", "an empty zip archive", _AGAIN),
    (b"Rar!", "a rar archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"BZh", "a bzip2 file", "unpack it"),
    (b"\xfd7zXZ\0", "an xz file", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it"),
    (b"%PDF", "a PDF", "export the image itself as DICOM or PNG"),
    (b"%!PS", "a PostScript file", "export the image itself as DICOM or PNG"),
    (b"II*\0", "a TIFF image", "convert it to PNG or DICOM"),
    (b"MM\0*", "a TIFF image", "convert it to PNG or DICOM"),
    (b"BM", "a BMP image", "convert it to PNG"),
    (b"GIF8", "a GIF image", "convert it to PNG"),
    (b"RIFF", "a WebP image or another RIFF file", "convert it to PNG"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image", "convert it to PNG"),
    (b"NRRD", "an NRRD volume", "convert it to NIfTI"),
    (b"ObjectType", "a MetaImage header", "convert the volume to NIfTI"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 (or MATLAB 7.3) file", "save each image as NIfTI or npy"),
    (b"MATLAB 5.0", "a MATLAB file", "save each image as NIfTI or npy"),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "give the image file itself"),
    (b"SQLite format 3", "a database", "give the image files themselves"),
    (b"\x80\x02", "a pickle", "save plain numbers with numpy.save"),
    (b"\x80\x03", "a pickle", "save plain numbers with numpy.save"),
    (b"\x80\x04", "a pickle", "save plain numbers with numpy.save"),
    (b"\x80\x05", "a pickle", "save plain numbers with numpy.save"),
)


def sniff(path: Path) -> str:
    """Tell the kind of a file by its first bytes: `dicom`, `nifti`, `png`, `jpeg`, `npy` or `unknown`.

    Raises:
        UnreadableImage: the file is missing or may not be read.
    """
    head = _head(path)
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


def stands_in(path: Path) -> str:
    """What a file is that is none of `sniff`'s kinds, with the mend; empty where it is one of them.

    A data set's images are often stood in for: by a pointer of Git LFS or git-annex, a login page, an archive, a cut
    or an empty copy.
    """
    try:
        if sniff(path) != "unknown":
            return ""
        head = _head(path)
    except UnreadableImage as error:
        return error.reason
    if not head:
        return f"the file is empty: {_AGAIN}"
    if not head.strip(b"\0"):
        return f"the file begins with nothing but zeros, as after a broken copy: {_AGAIN}"
    if head.startswith(b"\x1f\x8b"):
        return _inside_gzip(path)
    return (
        _what(head)
        or _cut(path, head)
        or ("the content is not DICOM, NIfTI (.nii, .nii.gz), PNG, JPEG or npy: convert the file to one of these")
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        if path.is_symlink() and not path.exists():
            annex = ".git/annex" in path.readlink().as_posix()
            mend = "fetch the content with `git annex get` or `datalad get`" if annex else "mend the link"
            raise UnreadableImage(path, f"the file is a link to something that is not there: {mend}") from error
        raise UnreadableImage(path, f"the file cannot be opened ({error.strerror}): check the path") from error


def _what(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(_LFS):
        return "this is a Git LFS pointer, not the image: fetch the content with `git lfs pull`"
    if b"/annex/objects/" in head[:64] or b".git/annex/" in head[:128]:
        return "this is a git-annex pointer, not the image: fetch the content with `git annex get` or `datalad get`"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return f"this is an HTML page, not an image (a login or error page?): log in and {_AGAIN}"
    if text.startswith((b"<?xml", b"{", b"[")):
        return f"this is XML or JSON text, not an image (an error message of the server?): {_AGAIN}"
    for magic, kind, mend in _OTHERS:
        if head.startswith(magic):
            return f"this is {kind}, not an image that radaug reads: {mend}"
    if head[257:262] == b"ustar":
        return "this is a tar archive, not an image: unpack it"
    if int.from_bytes(head[:4], "little") == 348 or int.from_bytes(head[:4], "big") == 348:
        if len(head) < 348:
            return f"the NIfTI file is cut short in its header ({len(head)} of 348 bytes): {_AGAIN}"
        return "this is an Analyze 7.5 header, which does not say left from right: convert the volume to NIfTI"
    return ""


def _cut(path: Path, head: bytes) -> str:
    """A file too short for the kind that its ending promises, or plain text."""
    if len(head) < _HEAD_BYTES and path.name.lower().endswith((".dcm", ".nii", ".nii.gz", ".png", ".jpg", ".jpeg")):
        return f"the file is cut short ({len(head)} bytes): {_AGAIN}"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        return PLAIN_TEXT
    return ""


def _inside_gzip(path: Path) -> str:
    head = _gunzipped_head(path)
    if not head:
        return f"the gzip file is damaged or cut short: {_AGAIN}"
    if head[128:132] == b"DICM":
        return "this is a gzipped DICOM file: unpack it with gunzip"
    if not head.strip(b"\0"):
        return f"the gzip file holds nothing but zeros: {_AGAIN}"
    what = _what(head)
    return f"inside the gzip file: {what}" if what else "the gzip file holds no NIfTI volume: unpack it, or convert it"


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
