"""DICOM volumes: slices of a folder, or frames of one file, put into one orthogonal grid with even steps."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.dicom import (
    AIR_HU,
    Plane,
    decoding,
    find_plane,
    frame_values,
    header_facts,
    is_ct,
    load,
    refuse_localizer,
    stored_frames,
)
from pipeline.data.readers.image import Image
from pipeline.data.readers.kinds import sniff

_SAME_PLACE_MM = 0.01
_STEP_TOLERANCE = 0.01  # of the step: unevenness that rounding in the header explains
_DRIFT_PIXELS = 0.1  # a sideways drift over the whole series below this is not a tilt
_RUN_OF_OWN_STEP = 3  # so many equal wide gaps in a row are a part scanned with wider steps, not lost slices


@dataclass(frozen=True)
class _Slice:
    plane: Plane
    pixels: NDArray[np.float32]  # [rows, cols]
    sop_instance_id: str = ""


def index_series(folder: Path) -> dict[str, list[Path]]:
    """The image series in a folder and the folders below it: series id to its files, by headers alone.

    Files that are not DICOM, and DICOM objects that are no images (reports, contours, DICOMDIR), are passed over.
    Files without a series id, or with a damaged header, count as one series for each folder, named `folder:` and its
    path from here; reading that series then says what is wrong.

    Raises:
        UnreadableImage: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise UnreadableImage(folder, "this is not a folder: name the folder that holds the DICOM slices")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if sniff(path) != "dicom":
            continue
        series_id = ""
        with suppress(UnreadableImage), decoding(path, "the header"):
            dataset = load(path, pixels=False)
            if not _is_image(dataset):
                continue
            series_id = str(dataset.get("SeriesInstanceUID") or "").strip()
        found[series_id or f"folder:{path.parent.relative_to(folder).as_posix()}"].append(path)
    return dict(found)


def read_series(folder: Path, series_id: str | None = None) -> Image:
    """Read one CT (or other) series as a volume [1, X, Y, Z]: column, row and slice index.

    The grid that comes back is orthogonal and even. Slices are ordered along their normal. A tilted gantry is undone
    by moving each slice sideways (linear, the canvas grows so that nothing is lost, new voxels are -1024 HU;
    `meta["tilt_degrees"]`). Uneven steps are resampled (linear) to the smallest step that occurs more than once, or
    the median if none does (`meta["resampled"]`). Steps that agree within 1 % or 0.01 mm are even. Values of CT are HU.

    Args:
        folder: the series, or a tree of several of which `series_id` names one.
        series_id: as in `index_series` of this folder or of one above it; may be left out where there is one series.

    Raises:
        UnreadableImage: several series and none named; slices that do not fit together, lie twice at one place or
            are missing; anything that makes a single slice unreadable.
    """
    index = index_series(folder)
    if not index:
        raise UnreadableImage(folder, "no DICOM images were found in this folder: check the path")
    if series_id is None and len(index) > 1:
        reason = f"mixed: the folder holds {len(index)} series: name one as series_id, or give each its own folder"
        raise UnreadableImage(folder, reason)
    files = next(iter(index.values())) if series_id is None else _chosen(folder, index, series_id)
    if not files:
        reason = f"none of the {len(index)} series in this folder has the series_id that was asked for: check it"
        raise UnreadableImage(folder, reason)
    if len(files) == 1:
        return read_multiframe(files[0])
    headers = [load(path, pixels=False) for path in files]
    with decoding(folder, "the headers of the series"):
        planes = _matching_planes(folder, files, headers)
        facts = [header_facts(header) for header in headers]
    slices = [
        _Slice(plane, _slice_pixels(path), fact.get("sop_instance_id", ""))
        for plane, path, fact in zip(planes, files, facts, strict=True)
    ]
    meta = {name: text for name, text in facts[0].items() if name != "sop_instance_id"}
    return _stack(folder, _without_copies(folder, slices), "HU" if is_ct(headers[0]) else "none", meta)


def read_multiframe(path: Path) -> Image:
    """Read one multi-frame DICOM file (enhanced CT and its kin) as a volume; the rules are those of `read_series`.

    Raises:
        UnreadableImage: a single frame, or frames without a place in the patient, and all that `read_series` refuses.
    """
    dataset = load(path, pixels=True)
    with decoding(path, "the frames"):
        refuse_localizer(path, dataset)
        count = int(dataset.get("NumberOfFrames") or 1)
        stored = stored_frames(path, dataset)
        if count < 2:
            reason = "this is one flat DICOM slice, but spatial_dims is 3: give the series' folder, or set it to 2"
            raise UnreadableImage(path, reason)
        places = [find_plane(dataset, frame) for frame in range(count)]
        planes = [plane for plane in places if plane is not None]
        if len(planes) < count:
            reason = f"{count - len(planes)} of {count} frames do not say where they lie (a film or a screenshot?): "
            raise UnreadableImage(path, reason + "export the volume as enhanced CT or as single slices")
        _require_one_grid(path, planes)
        values = [frame_values(path, dataset, stored[frame], frame) for frame in range(count)]
        meta = header_facts(dataset)
    slices = [_Slice(plane, pixels) for plane, pixels in zip(planes, values, strict=True)]
    return _stack(path, _without_copies(path, slices), "HU" if is_ct(dataset) else "none", meta)


def _chosen(folder: Path, index: dict[str, list[Path]], series_id: str) -> list[Path]:
    """The files of one series; a series without id may be named as from a folder further up."""
    kind, _, place = series_id.partition("folder:")
    if kind == "" and place and series_id not in index and f"/{folder.absolute().as_posix()}".endswith(f"/{place}"):
        return index.get("folder:.", [])
    return index.get(series_id, [])


def _is_image(dataset: Dataset) -> bool:
    kind = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or ""))
    if kind.name != kind:  # a class of the standard has a name
        return "Image Storage" in kind.name
    return not kind or "Rows" in dataset


def _slice_pixels(path: Path) -> NDArray[np.float32]:
    dataset = load(path, pixels=True)
    with decoding(path, "the image"):
        return frame_values(path, dataset, stored_frames(path, dataset)[0], 0)


def _matching_planes(folder: Path, files: list[Path], headers: list[Dataset]) -> list[Plane]:
    """The slices' places, after the checks that need only headers."""
    planes = []
    for path, header in zip(files, headers, strict=True):
        refuse_localizer(path, header)
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise UnreadableImage(path, f"multi-frame file among {len(files)} files of one series: read it by itself")
        plane = find_plane(header)
        if plane is None:
            reason = "the slice does not say where it lies (position, orientation or spacing missing): "
            raise UnreadableImage(path, reason + "export the original slices")
        planes.append(plane)
    _require_same(folder, "image sizes", [(header.get("Rows"), header.get("Columns")) for header in headers])
    _require_same(folder, "modalities", [header.get("Modality") for header in headers])
    _require_one_grid(folder, planes)
    return planes


def _require_same(path: Path, what: str, values: list[Any]) -> None:
    kinds = len(set(values))
    if kinds > 1:
        raise UnreadableImage(path, f"the slices have {kinds} different {what}: put each kind into a series of its own")


def _require_one_grid(path: Path, planes: list[Plane]) -> None:
    first = planes[0]
    for plane in planes:
        columns_turn = np.abs(plane.along_columns - first.along_columns).max()
        rows_turn = np.abs(plane.along_rows - first.along_rows).max()
        if max(columns_turn, rows_turn) > 1e-3:
            raise UnreadableImage(path, "the slices are not parallel: put each orientation into a series of its own")
        if not np.allclose(plane.pixel_mm, first.pixel_mm, rtol=1e-3, atol=0):
            raise UnreadableImage(path, "the slices differ in pixel spacing: put each spacing into a series of its own")


def _without_copies(path: Path, slices: list[_Slice]) -> list[_Slice]:
    """Slices sorted along the normal; equal pixels at one place are kept once."""
    normal = slices[0].plane.normal
    kept: list[_Slice] = []
    for one in sorted(slices, key=lambda one: float(one.plane.position @ normal)):
        if kept and abs((one.plane.position - kept[-1].plane.position) @ normal) < _SAME_PLACE_MM:
            if not np.array_equal(one.pixels, kept[-1].pixels):
                reason = "different images lie at one position (several phases or reconstructions in the series?): "
                raise UnreadableImage(path, reason + "export each as its own series")
        else:
            kept.append(one)
    if len(kept) < 2:
        raise UnreadableImage(path, "the series has one slice, but spatial_dims is 3: set it to 2, or export all of it")
    ids = [one.sop_instance_id for one in kept if one.sop_instance_id]
    if len(set(ids)) < len(ids):
        reason = f"{len(ids)} slices share {len(set(ids))} SOP instance ids: the export is damaged, export it again"
        raise UnreadableImage(path, reason)
    return kept


def _stack(path: Path, slices: list[_Slice], unit: str, meta: dict[str, str]) -> Image:
    plane = slices[0].plane
    volume = np.stack([one.pixels for one in slices])
    offsets = np.array([one.plane.position for one in slices]) - plane.position
    depths = offsets @ plane.normal
    lowest = AIR_HU if unit == "HU" else float(volume.min())
    origin = plane.position
    sideways = np.stack([offsets @ plane.along_rows, offsets @ plane.along_columns])  # [2, slices], mm
    if (np.abs(sideways).max(axis=1) > _DRIFT_PIXELS * np.array(plane.pixel_mm)).any():
        meta["tilt_degrees"] = f"{_tilt_degrees(path, depths, sideways, plane.pixel_mm):.2f}"
        for axis, along in enumerate((plane.along_rows, plane.along_columns)):
            shifts = sideways[axis] / plane.pixel_mm[axis]
            volume, start = _shifted(volume, shifts, axis=axis + 1, fill=lowest)
            origin = origin + along * start * plane.pixel_mm[axis]
    step, even = _step(path, np.diff(depths))
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
    return Image(array, to_ras @ affine, (plane.pixel_mm[1], plane.pixel_mm[0], step), unit, meta)


def _tilt_degrees(
    path: Path, depths: NDArray[np.float64], sideways: NDArray[np.float64], pixel_mm: tuple[float, float]
) -> float:
    """Angle between the way from slice to slice and the slice normal; the slices must lie on a straight line."""
    slope = sideways[:, -1] / depths[-1]
    strays = np.abs(sideways - slope[:, None] * depths).max()
    if strays > 0.5 * min(pixel_mm):
        reason = f"slices are displaced sideways by up to {strays:.1f} mm off a straight line: export the series again"
        raise UnreadableImage(path, reason)
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


def _step(path: Path, gaps: NDArray[np.float64]) -> tuple[float, bool]:
    """The grid's step in mm, and whether the slices lie on it already."""
    median = float(np.median(gaps))
    if np.abs(gaps - median).max() <= max(_STEP_TOLERANCE * median, _SAME_PLACE_MM):
        return float(gaps.mean()), True
    equal = np.abs(gaps[:, None] - gaps) <= np.maximum(_STEP_TOLERANCE * gaps, _SAME_PLACE_MM)
    common = equal.sum(axis=0) > 1
    step = float(gaps[common].min() if common.any() else np.sort(gaps)[(len(gaps) - 1) // 2])
    missing = _missing_slices(gaps, step)
    if missing:
        reason = f"incomplete: {missing} of {len(gaps) + 1 + missing} slices are missing inside the series: export all"
        raise UnreadableImage(path, reason)
    if gaps.max() > 2 * median * (1 + _STEP_TOLERANCE):
        reason = f"incomplete: a gap of {gaps.max():.2f} mm among steps of {median:.2f} mm: export all slices"
        raise UnreadableImage(path, reason)
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
