"""Text files that people save: in which encoding they are, or what else they are."""

from __future__ import annotations

import codecs

_HEAD_BYTES = 4096
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_OTHERS = (
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"%PDF", "a PDF file"),
    (b"{\\rtf", "a rich text file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x93NUMPY", "a numpy array"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x89HDF", "an HDF5 file"),
)


def foreign_kind(head: bytes) -> str:
    """What a file is that should have been something else, told by its first bytes, with the mend; empty if unknown.

    Told are what stands in for a file that was never fetched (a Git LFS or git-annex pointer, a web page) and what is
    commonly given in a file's stead (workbooks, archives, documents).
    """
    start = head[:_HEAD_BYTES].removeprefix(codecs.BOM_UTF8).lstrip()
    lowered = start[:512].lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it stands for: fetch that with `git lfs pull`"
    if start.startswith(b"/annex/objects/") or b".git/annex/objects" in start[:512]:
        return "a git-annex pointer, not the file it stands for: fetch that with `git annex get`"
    if lowered.startswith((b"<!doctype html", b"<html")) or (lowered.startswith(b"<?xml") and b"<html" in lowered):
        return "a web page (HTML), as a failed download or a log-in page leaves it: fetch the file again"
    if start.startswith(b"PK\x03\x04"):
        return _zipped(start)
    return next((kind for mark, kind in _OTHERS if start.startswith(mark)), "")


def _zipped(start: bytes) -> str:
    if b"xl/" in start or b"[Content_Types].xml" in start:
        return "an Excel workbook (.xlsx): save the sheet as 'CSV UTF-8'"
    if b"opendocument" in start:
        return "an OpenDocument file: save the sheet as CSV (UTF-8)"
    return "an npz file" if b".npy" in start[:200] else "a zip archive: unpack it"


def decode(raw: bytes) -> tuple[str, str]:
    """Text and encoding of `raw`: by its byte order mark, else UTF-16 by its zero bytes, UTF-8, Windows text (cp1252).

    Windows text is what is left when it is not UTF-8. Were it another one-byte encoding, letters beyond ASCII would be
    wrong, but different words stay different.

    Raises:
        UnicodeDecodeError: it is none of these.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw[len(mark) :].decode(encoding), encoding
    if _zeros(raw[1::2]) or _zeros(raw[0::2]):
        encoding = "utf-16-le" if _zeros(raw[1::2]) else "utf-16-be"
        return raw.decode(encoding), encoding
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return raw.decode("cp1252"), "cp1252"


def _zeros(half: bytes) -> bool:
    """Whether most of every second byte is zero, as in UTF-16 text of Latin letters."""
    sample = half[:_HEAD_BYTES]
    return len(sample) > 1 and sample.count(0) > 0.5 * len(sample)
