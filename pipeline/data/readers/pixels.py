"""From stored numbers to physical values: Hounsfield units for CT, bright-is-high grey levels for X-ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.header import attribute, is_ct, text_of
from pipeline.data.readers.image import require_finite
from pipeline.data.readers.plausible import hu_fault, joined_to_border, sign_fault
from pipeline.data.readers.stored import stored_frames

AIR_HU = -1024.0
"""The lowest value kept in a CT: scanners write padding outside the field of view at or below it."""

_HU_RESCALE_TYPES = ("", "HU", "HU_MOD", "US")  # US: unspecified, which in a plain CT means HU


def physical_frames(path: Path, dataset: Dataset) -> NDArray[np.float32]:
    """Physical values of all frames [frames, rows, cols]: HU for CT, else the modality LUT's, high = bright.

    A CT marked MONOCHROME1 is not inverted, since its Hounsfield units do not depend on how it is shown. Call it
    inside `decoding`.

    Raises:
        UnreadableImage: all of `stored_frames`; a CT without a usable rescale, or with values that no CT can have.
    """
    words, numbers = stored_frames(path, dataset)
    frames = []
    for frame in range(len(numbers)):
        padding = _padding(dataset, words[frame], numbers[frame])
        to_physical = _hounsfield if is_ct(dataset) else _grey_levels
        values = to_physical(path, dataset, numbers[frame], padding, frame)
        require_finite(path, values)
        frames.append(values.astype(np.float32))
    return frames[0][None] if len(frames) == 1 else np.stack(frames)


def _hounsfield(
    path: Path, dataset: Dataset, numbers: NDArray[Any], padding: NDArray[np.bool_], frame: int
) -> NDArray[np.float64]:
    if int(dataset.SamplesPerPixel) > 1 or text_of(dataset.PhotometricInterpretation) == "PALETTE COLOR":
        reason = "this CT is in colour, so its numbers are no Hounsfield units (a screenshot or a fusion image?): "
        raise UnreadableImage(path, reason + "export the original slices")
    if dataset.get("ModalityLUTSequence"):
        kind = text_of(dataset.ModalityLUTSequence[0].get("ModalityLUTType")).upper()
        if kind not in ("HU", "HU_MOD"):
            reason = f"this CT's modality LUT gives {kind or 'an unnamed unit'}, not Hounsfield units: export it in HU"
            raise UnreadableImage(path, reason)
        values = _looked_up(path, dataset, numbers)
        fault = ""
    else:
        slope, intercept = _rescale(path, dataset, frame)
        values = numbers.astype(np.float64)
        values *= slope
        values += intercept
        fault = ""
        if numbers.dtype.kind != "f":
            signed, bits = bool(int(dataset.PixelRepresentation)), int(dataset.BitsStored)
            fault = sign_fault(numbers, ~padding, signed=signed, bits=bits, slope=slope, intercept=intercept)
    padded = bool(padding.any())
    fault = fault or hu_fault(values[~padding] if padded else values)
    if fault:
        raise UnreadableImage(path, fault)
    if padded:
        values[padding] = AIR_HU
    return np.maximum(values, AIR_HU, out=values)


def _rescale(path: Path, dataset: Dataset, frame: int) -> tuple[float, float]:
    tags = ("RescaleSlope", "RescaleIntercept")
    missing = [tag for tag in tags if attribute(dataset, tag, frame) is None]
    if missing:
        reason = f"this CT states no rescale slope and intercept ({' and '.join(missing)} missing), so its Hounsfield "
        reason += "units are unknown: export the original slices, not screenshots or secondary captures"
        raise UnreadableImage(path, reason)
    kind = text_of(attribute(dataset, "RescaleType", frame)).upper()
    if kind not in _HU_RESCALE_TYPES:
        reason = f"this CT is in {kind}, not in Hounsfield units (a map computed from it?): use the HU reconstruction"
        raise UnreadableImage(path, reason)
    slope, intercept = (float(attribute(dataset, tag, frame)) for tag in tags)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise UnreadableImage(
            path, f"the rescale slope {slope} and intercept {intercept} are not usable: export it again"
        )
    return slope, intercept


def _grey_levels(
    path: Path, dataset: Dataset, numbers: NDArray[Any], padding: NDArray[np.bool_], frame: int
) -> NDArray[np.float64]:
    """The modality LUT's values; those of MONOCHROME1 are then mirrored in the range that this LUT can give."""
    if dataset.get("ModalityLUTSequence"):
        values = _looked_up(path, dataset, numbers)
        ends = (0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    else:
        slope = attribute(dataset, "RescaleSlope", frame)
        intercept = float(attribute(dataset, "RescaleIntercept", frame) or 0)
        slope = float(1 if slope is None else slope)
        values = numbers.astype(np.float64) * slope + intercept
        low, high = _ends(dataset) if numbers.dtype.kind != "f" else (float(numbers.min()), float(numbers.max()))
        ends = (low * slope + intercept, high * slope + intercept)
    if text_of(dataset.PhotometricInterpretation) == "MONOCHROME1":
        values = sum(ends) - values
    if padding.any() and not padding.all():
        values[padding] = values[~padding].min()
    return values


def _ends(dataset: Dataset) -> tuple[int, int]:
    """The lowest and the highest number that the stored bits can hold."""
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if int(dataset.PixelRepresentation) else (0, 2**bits - 1)


def _looked_up(path: Path, dataset: Dataset, numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers through the modality LUT (PS3.3 C.11.1.1): those outside it take its first or last entry."""
    item = dataset.ModalityLUTSequence[0]
    entries, first, _ = (int(value) for value in item.LUTDescriptor)
    entries = entries or 2**16
    if int(dataset.get("PixelRepresentation") or 0) and first >= 2**15:  # often written unsigned
        first -= 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if UID(dataset.file_meta.TransferSyntaxUID).is_little_endian else ">"
        data = np.frombuffer(data, dtype=f"{order}u2" if len(data) >= 2 * entries else "u1")
    table = np.atleast_1d(np.asarray(data)).astype(np.int64) % 2**16
    if len(table) < entries:
        reason = f"the modality LUT holds {len(table)} of {entries} entries: export the file again"
        raise UnreadableImage(path, reason)
    return table[np.clip(numbers.astype(np.int64) - first, 0, entries - 1)].astype(np.float64)


def _padding(dataset: Dataset, words: NDArray[Any], numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels with the padding value that are joined to the border [rows, cols].

    The same number inside the body is a measurement: some files name 0 as padding and have 0 HU in the patient.
    """
    if dataset.get("PixelPaddingValue") is None or numbers.dtype.kind == "f":
        return np.zeros(numbers.shape, dtype=bool)
    ends = [int(dataset.PixelPaddingValue), int(dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue))]
    marked = np.zeros(numbers.shape, dtype=bool)
    for stored in (numbers, words):  # padding may need more bits than the numbers have
        unsigned = stored.dtype.kind == "u" or not int(dataset.PixelRepresentation)
        low, high = sorted(_as_marked(end, int(dataset.BitsAllocated), signed=not unsigned) for end in ends)
        marked |= (stored >= low) & (stored <= high)
    return joined_to_border(marked)


def _as_marked(number: int, bits: int, *, signed: bool) -> int:
    """A padding value is often written with the other sign: 63536 stands for -2000, and the other way round."""
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) if signed else number % 2**bits
