"""Whether the slices of a series are of one kind: two image sets that lie between each other are no volume.

Tags may differ within a good series: in blocks (a part scanned with another thickness), or slice by slice in step with
the position (times, numbers, tube current). What a good series never has is a tag that goes back and forth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.header import attribute, text_of
from pipeline.data.readers.stacking import SAME_PLACE_MM, Slice

_ONE = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "PatientID")
_SHOWN = ("ConvolutionKernel", "ImageType", "FrameType", "KVP", "EchoTime", "SliceThickness", "AcquisitionNumber")
_KINDS = (
    *_SHOWN,
    *("ContrastBolusAgent", "ContrastBolusRoute", "ReconstructionDiameter", "FilterType", "ScanOptions"),
    *("SeriesDescription", "ProtocolName", "StationName", "RescaleType", "FrameAcquisitionNumber", "StackID"),
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase"),
)
_OVERLAPPING = ("AcquisitionNumber", "FrameAcquisitionNumber")  # neighbouring slabs may overlap by a slice or two
_ASCENDING = ("AcquisitionTime", "ContentTime", "AcquisitionDateTime", "FrameAcquisitionDateTime", "InstanceNumber")
_LEVEL = ("RescaleIntercept", "PixelRepresentation")
_MEND = "put each kind into a series of its own"

_RUN = 12  # slices that must alternate in a longer series before numbers or times are believed to be of two sets
_LIKER = 0.8  # slices two apart differ by less than this share of what neighbours do: two sets
_LEVEL_HU = 500.0
_UNLIKE_STEPS = 0.8  # of a pair of steps the shorter one: scanners with two rows are not that uneven


def making(dataset: Dataset, frame: int = 0) -> dict[str, str]:
    """How a slice was made, by DICOM keyword; numbers are written alike ("4.0" and "4"), missing ones are empty."""
    keywords = (*_ONE, *_KINDS, *_ASCENDING, *_LEVEL, "RescaleSlope", "SOPInstanceUID")
    tags = {keyword: text_of(attribute(dataset, keyword, frame)) for keyword in keywords}
    for keyword in ("KVP", "EchoTime", "SliceThickness", "ReconstructionDiameter", "RescaleSlope", "RescaleIntercept"):
        with suppress(ValueError):
            tags[keyword] = f"{float(tags[keyword]):.4g}" if tags[keyword] else ""
    return tags


def without_copies(path: Path, slices: list[Slice]) -> list[Slice]:
    """Slices sorted along the normal; equal pixels at one place are kept once.

    Raises:
        UnreadableImage: different images at one place, fewer than two slices, slices that share a SOP instance id.
    """
    normal = slices[0].plane.normal
    kept: list[Slice] = []
    for one in sorted(slices, key=lambda one: float(one.plane.position @ normal)):
        if kept and abs((one.plane.position - kept[-1].plane.position) @ normal) < SAME_PLACE_MM:
            if not np.array_equal(one.pixels, kept[-1].pixels):
                raise UnreadableImage(path, _clash(slices, kept[-1], one))
        else:
            kept.append(one)
    if len(kept) < 2:
        raise UnreadableImage(path, "the series has one slice, but spatial_dims is 3: set it to 2, or export all of it")
    holders: dict[str, str] = {}
    for one in kept:
        uid = one.tags.get("SOPInstanceUID", "")
        if uid and uid in holders:
            ids = [slice_.tags["SOPInstanceUID"] for slice_ in kept if slice_.tags.get("SOPInstanceUID")]
            reason = (
                f"{len(ids)} slices share {len(set(ids))} SOP instance ids (such as {holders[uid]} and {one.name}): "
            )
            raise UnreadableImage(path, reason + "the export is damaged, export it again")
        holders[uid] = one.name
    return kept


def _clash(slices: list[Slice], first: Slice, second: Slice) -> str:
    positions = np.array([one.plane.position for one in slices])
    if len(slices) > 2 and np.ptp(positions, axis=0).max() < SAME_PLACE_MM:
        return (
            f"all {len(slices)} slices state the same ImagePositionPatient, so their order is lost (an anonymiser?): "
            "export the original slices"
        )
    differing = [tag for tag in (*_ONE, *_KINDS, *_ASCENDING) if first.tags.get(tag, "") != second.tags.get(tag, "")]
    by = f"they differ in {', '.join(differing[:4])}" if differing else "no tag tells them apart"
    return (
        f"{first.name} and {second.name} are different images at one position ({by}; several phases or "
        "reconstructions in the series?): export each as its own series"
    )


def require_one_kind(path: Path, slices: list[Slice], unit: str) -> None:
    """Refuse sorted slices of several kinds, by the tag that differs and the slices that hold the rarer value.

    Raises:
        UnreadableImage: as above.
    """
    for tag in _ONE:
        values = _values(slices, tag)
        if 1 < len(set(values)) < len(values):  # one each: an anonymiser's work, and no sign of anything
            raise UnreadableImage(path, f"the slices {_parted(slices, tag, values)}: {_MEND}")
    for tag in _KINDS:
        values = _values(slices, tag)
        if _back_and_forth(values, overlapping=tag in _OVERLAPPING):
            raise UnreadableImage(path, f"mixed: the slices {_parted(slices, tag, values)} in turn: {_MEND}")
    for tag in _ASCENDING:
        numbers = _numbers(_values(slices, tag))
        if numbers is not None and (interleaved(numbers) or (tag == "InstanceNumber" and doubled(numbers))):
            reason = f"mixed: two or more image sets lie between each other, told apart by {tag}"
            raise UnreadableImage(path, f"{reason} (such as {slices[0].name} and {slices[1].name}): {_MEND}")
    places = np.array([one.plane.position @ slices[0].plane.normal for one in slices])
    pair = _alternating_gaps(np.diff(places))
    if pair is not None:
        steps = " and ".join(f"{gap:.2f}" for gap in sorted(np.diff(places)[pair : pair + 2]))
        reason = f"mixed: the steps are {steps} mm in turn, so two image sets lie between each other"
        raise UnreadableImage(path, f"{reason} (such as {slices[pair].name} and {slices[pair + 1].name}): {_MEND}")
    if _look_interleaved([one.pixels for one in slices]):
        reason = "mixed: slices two apart look more alike than neighbours do, so two image sets lie between each other"
        raise UnreadableImage(path, f"{reason} (such as {slices[0].name} and {slices[1].name}): {_MEND}")
    if unit == "HU":
        _require_one_level(path, slices)


def interleaved(numbers: NDArray[np.float64]) -> bool:
    """Whether 2 to 4 sets alternate: over the whole or 12 in a row, each set monotone and all of another range."""
    count = len(numbers)
    if (np.diff(numbers) >= 0).all() or (np.diff(numbers) <= 0).all():
        return False
    for sets in (2, 3, 4):
        window = min(count, max(_RUN, 3 * sets))
        if count < 3 * sets:
            break
        for start in range(count - window + 1):
            part = [numbers[start + first : start + window : sets] for first in range(sets)]
            monotone = all((np.diff(one) >= 0).all() or (np.diff(one) <= 0).all() for one in part)
            ranges = sorted((one.min(), one.max()) for one in part)
            if monotone and all(low[1] < high[0] for low, high in pairwise(ranges)):
                return True
    return False


def doubled(numbers: NDArray[np.float64]) -> bool:
    """Whether most numbers occur several times, and not because the count begins anew in a second block."""
    counts = Counter(numbers.tolist())
    shared = sum(count for count in counts.values() if count > 1)
    if len(counts) == 1 or shared < len(numbers) / 2:
        return False
    blocks, seen = 1, set[float]()
    for number in numbers.tolist():
        if number in seen:
            blocks, seen = blocks + 1, set()
        seen.add(number)
    return blocks > max(counts.values())


def _alternating_gaps(gaps: NDArray[np.float64]) -> int | None:
    """Where a run of six slices or more begins whose steps are short and long in turn; None if there is none."""
    run = 0
    for place in range(len(gaps) - 2):
        first, second, third = gaps[place : place + 3]
        alike = abs(third - first) <= 0.02 * first
        run = run + 1 if alike and min(first, second) < _UNLIKE_STEPS * max(first, second) else 0
        if run >= 3:
            return place - 2
    return None


def _look_interleaved(images: Sequence[NDArray[np.float32]]) -> bool:
    if len(images) < 6:
        return False
    step = max(1, int(np.ceil(np.sqrt(images[0].size / 4096))))
    small = np.stack([image[::step, ::step] for image in images])
    near = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2))
    far = np.abs(small[2:] - small[:-2]).mean(axis=(1, 2))
    liker = far < _LIKER * np.minimum(near[:-1], near[1:])
    run = longest = 0
    for one in liker:
        run = run + 1 if one else 0
        longest = max(longest, run)
    return longest >= min(len(liker), 8)


def _require_one_level(path: Path, slices: list[Slice]) -> None:
    """Refuse neighbours whose darkest parts lie far apart where the header says that one is offset from the other."""
    for low, high in pairwise(slices):
        other = [tag for tag in _LEVEL if low.tags.get(tag) != high.tags.get(tag)]
        if other and low.tags.get("RescaleSlope") == high.tags.get("RescaleSlope"):
            apart = abs(float(np.percentile(low.pixels, 5)) - float(np.percentile(high.pixels, 5)))
            if apart > _LEVEL_HU:
                reason = f"{low.name} and {high.name} are neighbours, but their darkest parts are {apart:.0f} HU apart "
                raise UnreadableImage(
                    path, f"{reason}and they differ in {' and '.join(other)}: export the series again"
                )


def _values(slices: list[Slice], tag: str) -> list[str]:
    return [one.tags.get(tag, "") for one in slices]


def _parted(slices: list[Slice], tag: str, values: list[str]) -> str:
    """`have 2 different ConvolutionKernel (B30f in 8, B70f in 7; such as s3.dcm and s4.dcm)`."""
    counts = Counter(values).most_common()
    shown = [f"{value or 'none'} in {count}" for value, count in counts[:3]] if tag in _SHOWN else []
    examples = [next(one.name for one in slices if one.tags.get(tag, "") == value) for value, _ in counts[:2]]
    return f"have {len(counts)} different {tag} ({'; '.join([*shown, f'such as {examples[0]} and {examples[1]}'])})"


def _back_and_forth(values: list[str], *, overlapping: bool) -> bool:
    """Whether a value comes again after another one; where slabs may overlap, more often than their edges explain."""
    kinds = len(set(values))
    runs = 1 + sum(before != after for before, after in pairwise(values))
    if not overlapping:
        return runs > kinds
    return runs - kinds > 4 * (kinds - 1) or (runs == len(values) >= 2 * kinds >= 4)


def _numbers(values: list[str]) -> NDArray[np.float64] | None:
    """Numbers or times (HHMMSS ascends as a number does); None where some are missing or all are the same."""
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return None
    return numbers if len(set(values)) > 1 and np.isfinite(numbers).all() else None
