"""The numbers that a DICOM file stores: decoded, and only those bits that the header counts as the value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import UID, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes, RLELossless

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.header import is_ct, text_of
from pipeline.data.readers.image import grey, require_finite

_NEEDED = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation")
_SMOOTHER = 0.8  # of the roughness
_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR")
_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)


def stored_frames(path: Path, dataset: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """The stored words and the numbers they hold, both [frames, rows, cols]. Call it inside `decoding`.

    A word may hold more than the number: bits outside `BitsStored` are unused or an overlay and are masked, and the
    number's own sign is extended, whatever the compression (PS3.5 8.1.1). Colour becomes grey, word and number alike.

    Raises:
        UnreadableImage: no pixels, a missing tag, a codec that is not installed, fewer bytes than the image needs,
            bits that contradict each other, NaN.
    """
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = text_of(dataset.get("Modality")) or "unknown modality"
        if "Rows" not in dataset and "Image Storage" in UID(text_of(dataset.get("SOPClassUID"))).name:
            raise UnreadableImage(path, f"the file ({kind}) is cut short in its header: copy it again")
        reason = f"this DICOM object ({kind}) holds no pixels: leave it out if it is a report or contours, "
        raise UnreadableImage(path, reason + "copy it again if it should be an image")
    photometric = _complete(path, dataset)
    _require_codec(path, dataset)
    _require_all_bytes(path, dataset)
    _require_ends(path, dataset)
    strict = "pylibjpeg" if dataset.file_meta.TransferSyntaxUID == RLELossless else ""  # others guess on damaged RLE
    if int(dataset.SamplesPerPixel) > 1:
        words = grey(path, pixel_array(dataset, decoding_plugin=strict))
        numbers: NDArray[Any] = words
    else:
        words = pixel_array(dataset, correct_unused_bits=False, decoding_plugin=strict)
        numbers = words if words.dtype.kind == "f" or dataset.BitsAllocated == 1 else _numbers(path, dataset, words)
        if photometric == "PALETTE COLOR":
            words = numbers = grey(path, apply_color_lut(numbers, dataset))
    shape = (-1, *words.shape[-2:])
    require_finite(path, numbers)
    return words.reshape(shape), numbers.reshape(shape)


def _complete(path: Path, dataset: Dataset) -> str:
    """Refuse a header without what the pixels need, by the tag's name; give the photometric interpretation.

    A CT may lack it: its numbers mean the same however they are shown. In an X-ray it decides which end is bright.
    """
    missing = [tag for tag in _NEEDED if dataset.get(tag) is None and ("PixelData" in dataset or "Bits" not in tag)]
    if "PixelData" not in dataset:  # real numbers have a sign of their own
        missing = [tag for tag in missing if tag != "PixelRepresentation"]
    if missing == ["SamplesPerPixel"] and text_of(dataset.get("PhotometricInterpretation")).upper()[:4] == "MONO":
        dataset.SamplesPerPixel, missing = 1, []
    photometric = text_of(dataset.get("PhotometricInterpretation")).upper()
    if not photometric and "SamplesPerPixel" not in missing and int(dataset.SamplesPerPixel) == 1:
        shape = {"INVERSE": "MONOCHROME1", "IDENTITY": "MONOCHROME2"}
        photometric = (
            "MONOCHROME2" if is_ct(dataset) else shape.get(text_of(dataset.get("PresentationLUTShape")).upper(), "")
        )
    missing += [] if photometric else ["PhotometricInterpretation"]
    if missing:
        raise UnreadableImage(
            path, f"the header lacks {' and '.join(missing)}, which says how to read the pixels: export the file again"
        )
    if photometric not in _PHOTOMETRIC and not photometric.startswith("YBR_"):
        raise UnreadableImage(path, "PhotometricInterpretation has no value of the standard: export the file again")
    if "PixelData" in dataset and not 1 <= int(dataset.BitsStored) <= int(dataset.BitsAllocated):
        bits = f"BitsStored ({dataset.BitsStored}) does not fit BitsAllocated ({dataset.BitsAllocated})"
        raise UnreadableImage(path, f"{bits}: export the file again")
    dataset.PhotometricInterpretation = photometric
    return photometric


def _numbers(path: Path, dataset: Dataset, words: NDArray[Any]) -> NDArray[Any]:
    stored, allocated = int(dataset.BitsStored), 8 * words.dtype.itemsize
    plain = words.astype(words.dtype.newbyteorder("="), copy=False).view(f"u{words.dtype.itemsize}")
    wide = np.int64 if allocated > 16 else np.int32
    shift = _shift(path, dataset, plain, stored)
    bits = (plain >> shift).astype(wide) & (2**stored - 1)
    if int(dataset.PixelRepresentation):
        sign = 2 ** (stored - 1)
        bits = (bits ^ sign) - sign
    if shift == 0 and not np.array_equal(words, bits) and _roughness(words.astype(wide)) < _SMOOTHER * _roughness(bits):
        mark = f"BitsStored ({stored})" + (" or PixelRepresentation (1)" if int(dataset.PixelRepresentation) else "")
        reason = f"{mark} cuts through the numbers: with the bits above they make a smooth image, without they wrap "
        raise UnreadableImage(path, reason + "around. Set it right, or export the file again")
    return bits


def _roughness(numbers: NDArray[Any]) -> float:
    """Mean difference of neighbours in a row. Overlay bits make it larger, numbers that wrap around too."""
    return float(np.abs(np.diff(numbers, axis=-1)).mean()) if numbers.shape[-1] > 1 else 0.0


def _shift(path: Path, dataset: Dataset, words: NDArray[Any], stored: int) -> int:
    """How many bits lie below the number. The standard has had none for long; older files put numbers at the top."""
    high = dataset.get("HighBit")
    high = stored - 1 if high is None else int(high)
    below = high + 1 - stored
    if below == 0:
        return 0
    at_bottom = _fits(words, min(stored, high + 1), signed=bool(int(dataset.PixelRepresentation)))
    if 0 < below <= int(dataset.BitsAllocated) - stored:
        unused = words & words.dtype.type(2**below - 1)
        if not unused.any() or _overlay_below(dataset, below):
            return below
    if at_bottom:
        return 0
    reason = f"HighBit ({high}) contradicts BitsStored ({stored}), and the numbers do not tell which one is right: "
    raise UnreadableImage(path, reason + "export the file again")


def _fits(words: NDArray[Any], bits: int, *, signed: bool) -> bool:
    """Whether the words hold nothing but numbers of so many bits: zeros above them, or copies of their sign."""
    above = words >> (bits - 1 if signed else bits)
    filled = words.dtype.type(np.iinfo(words.dtype).max) >> (bits - 1)
    return bool(((above == 0) | (above == filled)).all()) if signed else not above.any()


def _overlay_below(dataset: Dataset, below: int) -> bool:
    positions = [dataset.get((group, 0x0102)) for group in _OVERLAY_GROUPS if (group, 0x3000) not in dataset]
    return any(position is not None and int(position.value or 0) < below for position in positions)


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
    if text_of(dataset.PhotometricInterpretation) == "YBR_FULL_422":
        samples = 2
    bits = rows * columns * samples * int(dataset.BitsAllocated) * int(dataset.get("NumberOfFrames") or 1)
    have, need = len(dataset.PixelData), (bits + 7) // 8
    if have < need:
        reason = f"the pixel data is cut short ({have} of {need} bytes): copy or export the file again"
        raise UnreadableImage(path, reason)
    if have - need > max(64, need // 10):
        reason = (
            f"the pixel data is longer than the header says ({have} for {need} bytes): Rows, Columns, BitsAllocated "
        )
        raise UnreadableImage(path, reason + "or NumberOfFrames is wrong, export the file again")


def _require_ends(path: Path, dataset: Dataset) -> None:
    """Refuse JPEG and JPEG-LS frames without their end marker: what is missing would be decoded as something."""
    if dataset.file_meta.TransferSyntaxUID not in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    for number, frame in enumerate(generate_frames(dataset.PixelData, number_of_frames=count), start=1):
        if b"\xff\xd9" not in frame.rstrip(b"\0")[-16:]:
            of = f" of frame {number}" if count > 1 else ""
            reason = f"the compressed pixel data{of} is cut short (no end marker): copy or export the file again"
            raise UnreadableImage(path, reason)
