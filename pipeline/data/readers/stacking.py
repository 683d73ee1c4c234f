"""Slices in a row become one orthogonal grid with even steps: gantry tilt undone, uneven steps resampled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.header import Plane
from pipeline.data.readers.image import Image
from pipeline.data.readers.pixels import AIR_HU

SAME_PLACE_MM = 0.01
_STEP_TOLERANCE = 0.01  # of the step: unevenness that rounding in the header explains
_DRIFT_PIXELS = 0.1  # a sideways drift over the whole series below this is not a tilt
_RUN_OF_OWN_STEP = 3  # so many equal wide gaps in a row are a part scanned with wider steps, not lost slices


@dataclass(frozen=True)
class Slice:
    """One slice of a series.

    Attributes:
        plane: where it lies.
        pixels: [rows, cols], physical values.
        name: the file's name, or the frame's number, for messages.
        tags: what the header says of the way it was made, as text; empty = not stated.
    """

    plane: Plane
    pixels: NDArray[np.float32]
    name: str
    tags: dict[str, str]


def stack(path: Path, slices: list[Slice], unit: str, meta: dict[str, str]) -> Image:
    """One volume [1, X, Y, Z] of slices that are sorted along their normal.

    Raises:
        UnreadableImage: slices off a straight line, or missing inside the series.
    """
    plane = slices[0].plane
    volume = np.stack([one.pixels for one in slices])
    offsets = np.array([one.plane.position for one in slices]) - plane.position
    depths = offsets @ plane.normal
    lowest = AIR_HU if unit == "HU" else float(volume.min())
    origin = plane.position
    sideways = np.stack([offsets @ plane.along_rows, offsets @ plane.along_columns])  # [2, slices], mm
    if (np.abs(sideways).max(axis=1) > _DRIFT_PIXELS * np.array(plane.pixel_mm)).any():
        meta["tilt_degrees"] = f"{_tilt_degrees(path, depths, sideways, slices):.2f}"
        for axis, along in enumerate((plane.along_rows, plane.along_columns)):
            shifts = sideways[axis] / plane.pixel_mm[axis]
            volume, start = _shifted(volume, shifts, axis=axis + 1, fill=lowest)
            origin = origin + along * start * plane.pixel_mm[axis]
    step, even = _step(path, np.diff(depths), [one.name for one in slices])
    if not even:
        meta["resampled"] = f"steps of {np.diff(depths).min():.3f} to {np.diff(depths).max():.3f} mm to {step:.3f} mm"
        volume = _resampled(volume, depths, step)
    affine = np.eye(4)
    affine[:3, 0] = plane.along_columns * plane.pixel_mm[1]
    affine[:3, 1] = plane.along_rows * plane.pixel_mm[0]
    affine[:3, 2] = plane.normal * step
    affine[:3, 3] = origin
    array = np.ascontiguousarray(volume.transpose(2, 1, 0), dtype=np.float32)[None]
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    return Image(array, to_ras @ affine, (plane.pixel_mm[1], plane.pixel_mm[0], step), unit, meta, unit_stated=True)


def _tilt_degrees(path: Path, depths: NDArray[np.float64], sideways: NDArray[np.float64], slices: list[Slice]) -> float:
    """Angle between the way from slice to slice and the slice normal; the slices must lie on a straight line."""
    slope = sideways[:, -1] / depths[-1]
    strays = np.abs(sideways - slope[:, None] * depths).max()
    if strays > 0.5 * min(slices[0].plane.pixel_mm):
        usual = np.median(np.diff(sideways) / np.diff(depths), axis=1)
        off = sideways - usual[:, None] * depths
        odd = int(np.abs(off - np.median(off, axis=1, keepdims=True)).max(axis=0).argmax())
        reason = f"slices are displaced sideways by up to {strays:.1f} mm off a straight line (most of all "
        raise UnreadableImage(path, f"{reason}{slices[odd].name}): export the series again")
    return float(np.degrees(np.arctan(np.hypot(*slope))))


def _shifted(
    volume: NDArray[np.float32], shifts: NDArray[np.float64], *, axis: int, fill: float
) -> tuple[NDArray[np.float32], int]:
    """Move slice i by shifts[i] pixels along `axis` (1 rows, 2 columns) on a canvas that holds all of them.

    Returns the moved [slices, rows, cols] and the index, in pixels of the first slice, at which the canvas starts.
    """
    start, stop = int(np.floor(shifts.min() + 1e-6)), int(np.ceil(shifts.max() - 1e-6))
    size = volume.shape[axis] + stop - start
    moved = np.full((len(volume), size, volume.shape[3 - axis]), fill, dtype=np.float32)
    for target, pixels, shift in zip(moved, volume, shifts, strict=True):
        lines = pixels if axis == 1 else pixels.T
        whole = int(np.floor(shift + 1e-6))
        part = np.float32(max(shift - whole, 0.0))
        padded = np.pad(lines, ((1, 1), (0, 0)), constant_values=fill)
        blended = (1 - part) * padded[1:] + part * padded[:-1]  # line k of the target takes lines k and k - 1
        room = min(len(blended), size - (whole - start))
        target[whole - start : whole - start + room] = blended[:room]
    return (moved if axis == 1 else moved.transpose(0, 2, 1)), start


def _step(path: Path, gaps: NDArray[np.float64], names: list[str]) -> tuple[float, bool]:
    """The grid's step in mm, and whether the slices lie on it already."""
    median = float(np.median(gaps))
    if np.abs(gaps - median).max() <= max(_STEP_TOLERANCE * median, SAME_PLACE_MM):
        return float(gaps.mean()), True
    equal = np.abs(gaps[:, None] - gaps) <= np.maximum(_STEP_TOLERANCE * gaps, SAME_PLACE_MM)
    common = equal.sum(axis=0) > 1
    step = float(gaps[common].min() if common.any() else np.sort(gaps)[(len(gaps) - 1) // 2])
    missing = _missing_slices(gaps, step)
    widest = int(gaps.argmax())
    where = f"the widest gap lies between {names[widest]} and {names[widest + 1]}"
    if missing:
        reason = f"incomplete: {missing} of {len(gaps) + 1 + missing} slices are missing inside the series ({where}): "
        raise UnreadableImage(path, reason + "export all")
    if gaps.max() > 2 * median * (1 + _STEP_TOLERANCE):
        reason = f"incomplete: a gap of {gaps.max():.2f} mm among steps of {median:.2f} mm ({where}): "
        raise UnreadableImage(path, reason + "export all slices")
    return step, False


def _missing_slices(gaps: NDArray[np.float64], step: float) -> int:
    """Slices lost from an otherwise regular series: gaps that are 2, 3, ... steps wide and do not come in a run."""
    multiples = np.rint(gaps / step)
    wide = (multiples >= 2) & (np.abs(gaps - multiples * step) <= 5 * _STEP_TOLERANCE * step)
    missing = 0
    start = 0
    for end in range(1, len(gaps) + 1):
        if end == len(gaps) or multiples[end] != multiples[start]:
            if wide[start] and end - start < _RUN_OF_OWN_STEP:
                missing += int(multiples[start] - 1) * (end - start)
            start = end
    return missing


def _resampled(volume: NDArray[np.float32], depths: NDArray[np.float64], step: float) -> NDArray[np.float32]:
    """Linear interpolation along the slices onto depths 0, step, 2 step, ... up to the last slice."""
    grid = step * np.arange(int(depths[-1] / step + 1e-3) + 1)
    upper = np.clip(np.searchsorted(depths, grid), 1, len(depths) - 1)
    part = np.clip((grid - depths[upper - 1]) / (depths[upper] - depths[upper - 1]), 0, 1).astype(np.float32)
    return np.stack(
        [(1 - share) * volume[above - 1] + share * volume[above] for above, share in zip(upper, part, strict=True)]
    )
