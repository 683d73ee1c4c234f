"""DICOM volumes: slices of a folder, or frames of one file, put into one orthogonal grid with even steps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pipeline.core.errors import UnreadableImage
from pipeline.data.readers.folders import files_below
from pipeline.data.readers.header import (
    Plane,
    decoding,
    find_plane,
    header_facts,
    is_ct,
    load,
    misplaced_by,
    refuse_localizer,
)
from pipeline.data.readers.image import Image
from pipeline.data.readers.kinds import PLAIN_TEXT, sniff, stands_in
from pipeline.data.readers.mixture import making, require_one_kind, without_copies
from pipeline.data.readers.pixels import physical_frames
from pipeline.data.readers.stacking import Slice, stack

_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")


def index_series(folder: Path) -> dict[str, list[Path]]:
    """The image series in a folder and the folders below it: series id to its files, by headers alone.

    Files that are not DICOM, and DICOM objects that are no images (reports, contours, DICOMDIR), are passed over.
    Files without a series id, or with a damaged header, count as one series for each folder, named `folder:` and its
    path from here; reading that series then says what is wrong.

    Raises:
        UnreadableImage: `folder` is not a folder, or a link in it leads nowhere.
    """
    if not folder.is_dir():
        raise UnreadableImage(folder, "this is not a folder: name the folder that holds the DICOM slices")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files_below(folder):
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
        raise UnreadableImage(folder, f"no DICOM images were found in this folder: {_first_stand_in(folder)}")
    files = (
        [path for paths in index.values() for path in paths] if series_id is None else _chosen(folder, index, series_id)
    )
    if not files:
        reason = f"none of the {len(index)} series in this folder has the series_id that was asked for: check it"
        raise UnreadableImage(folder, reason)
    _refuse_strangers(folder, files, index)
    if series_id is None and len(index) > 1:
        largest = sorted(index.values(), key=len, reverse=True)[:3]
        such = ", ".join(f"{len(paths)} such as {paths[0].relative_to(folder).as_posix()}" for paths in largest)
        reason = f"mixed: the folder holds {len(index)} series (of files {such}): "
        raise UnreadableImage(folder, reason + "name one as series_id, or give each its own folder")
    if len(files) == 1:
        return read_multiframe(files[0])
    names = [path.relative_to(folder).as_posix() for path in files]
    headers = []
    for path, name in zip(files, names, strict=True):
        with _naming(folder, name):
            headers.append(load(path, pixels=False))
    planes = [_plane(folder, name, header, len(files)) for name, header in zip(names, headers, strict=True)]
    with decoding(folder, "the headers of the series"):
        facts = [header_facts(header) for header in headers]
    _require_same(folder, "image sizes", names, [(header.get("Rows"), header.get("Columns")) for header in headers])
    _require_same(folder, "modalities", names, [fact.get("modality", "") for fact in facts])
    _require_one_grid(folder, names, planes)
    slices = []
    for path, name, plane, header in zip(files, names, planes, headers, strict=True):
        with _naming(folder, name):
            dataset = load(path, pixels=True)
            with decoding(path, "the image"):
                slices.append(Slice(plane, physical_frames(path, dataset)[0], name, making(header)))
    meta = {name: text for name, text in facts[0].items() if name != "sop_instance_id"}
    return _one_volume(folder, slices, "HU" if is_ct(headers[0]) else "none", meta)


def read_multiframe(path: Path) -> Image:
    """Read one multi-frame DICOM file (enhanced CT and its kin) as a volume; the rules are those of `read_series`.

    Raises:
        UnreadableImage: a single frame, or frames without a place in the patient, and all that `read_series` refuses.
    """
    dataset = load(path, pixels=True)
    with decoding(path, "the frames"):
        refuse_localizer(path, dataset)
        count = int(dataset.get("NumberOfFrames") or 1)
        if count < 2:
            physical_frames(path, dataset)  # what is wrong with the pixels comes first
            reason = "this is one flat DICOM slice, but spatial_dims is 3: give the series' folder, or set it to 2"
            raise UnreadableImage(path, reason)
        places = [find_plane(dataset, frame) for frame in range(count)]
        planes = [plane for plane in places if plane is not None]
        if len(planes) < count:
            first = places.index(None)
            reason = f"{count - len(planes)} of {count} frames do not say where they lie, the first is frame "
            reason += f"{first + 1} ({misplaced_by(dataset, first)}; a film or a screenshot?): "
            raise UnreadableImage(path, reason + "export the volume as enhanced CT or as single slices")
        names = [f"frame {frame + 1}" for frame in range(count)]
        _require_one_grid(path, names, planes)
        values = physical_frames(path, dataset)
        if len(values) != count:
            raise UnreadableImage(path, f"the file holds {len(values)} of {count} frames: copy or export it again")
        shared = {"SOPInstanceUID": "", "InstanceNumber": ""}
        slices = [
            Slice(planes[frame], values[frame], names[frame], making(dataset, frame) | shared) for frame in range(count)
        ]
        meta = header_facts(dataset)
    return _one_volume(path, slices, "HU" if is_ct(dataset) else "none", meta)


def _one_volume(path: Path, slices: list[Slice], unit: str, meta: dict[str, str]) -> Image:
    kept = without_copies(path, slices)
    require_one_kind(path, kept, unit)
    return stack(path, kept, unit, meta)


@contextmanager
def _naming(folder: Path, name: str) -> Iterator[None]:
    """Put the slice's name before the reason that one file of a series cannot be used."""
    try:
        yield
    except UnreadableImage as error:
        raise UnreadableImage(folder, f"slice {name}: {error.reason}") from None


def _refuse_strangers(folder: Path, files: list[Path], index: dict[str, list[Path]]) -> None:
    """Refuse a series with a file beside it that ought to be one of its slices and cannot be read."""
    endings = {*_DICOM_ENDINGS, *({""} & {path.suffix for path in files})}
    for place in sorted({path.parent for path in files}):
        beside = [path for path in sorted(place.iterdir()) if path.suffix.lower() in endings and path.name[0] != "."]
        for path in beside:
            wrong = stands_in(path) if not path.is_dir() else ""
            if wrong and (path.suffix or wrong != PLAIN_TEXT):  # README lies beside files without an ending
                reason = f"{path.relative_to(folder).as_posix()} lies among the slices and is no image: {wrong}"
                raise UnreadableImage(folder, reason)
    nameless = [path for key, paths in index.items() if key.startswith("folder:") for path in paths]
    for path in nameless:  # an image without ids, or one whose header is cut before them
        if path.parent in {file.parent for file in files}:
            with _naming(folder, path.relative_to(folder).as_posix()):
                if "Rows" not in load(path, pixels=False):
                    raise UnreadableImage(path, "its header is cut short: copy it again")


def _first_stand_in(folder: Path) -> str:
    for path in sorted(folder.rglob("*")):
        wrong = stands_in(path) if path.suffix.lower() in ("", *_DICOM_ENDINGS) and not path.is_dir() else ""
        if wrong:
            return f"{path.relative_to(folder).as_posix()}: {wrong}"
    return "check the path"


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


def _plane(folder: Path, name: str, header: Dataset, count: int) -> Plane:
    """The place of one slice of a series, after the checks that need only its header."""
    with _naming(folder, name), decoding(folder, "the header"):
        refuse_localizer(folder, header)
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise UnreadableImage(folder, f"multi-frame file among {count} files of one series: read it by itself")
        plane = find_plane(header)
        if plane is None:
            reason = f"it does not say where it lies ({misplaced_by(header)}): export the original slices"
            raise UnreadableImage(folder, reason)
    return plane


def _require_same(path: Path, what: str, names: list[str], values: Sequence[Hashable]) -> None:
    counts = Counter(values).most_common()
    if len(counts) > 1:
        odd = [name for name, value in zip(names, values, strict=True) if value != counts[0][0]]
        reason = f"the slices have {len(counts)} different {what} ({_some(odd)} unlike the others): "
        raise UnreadableImage(path, reason + "put each kind into a series of its own")


def _require_one_grid(path: Path, names: list[str], planes: list[Plane]) -> None:
    directions = [np.concatenate([plane.along_columns, plane.along_rows]) for plane in planes]
    usual_direction, usual_mm = _usual(directions), _usual([np.array(plane.pixel_mm) for plane in planes])
    turned, unlike = [], []
    for name, plane, direction in zip(names, planes, directions, strict=True):
        turned += [name] if np.abs(direction - usual_direction).max() > 1e-3 else []
        unlike += [] if np.allclose(plane.pixel_mm, usual_mm, rtol=1e-3, atol=0) else [name]
    if turned:
        reason = f"the slices are not parallel (ImageOrientationPatient of {_some(turned)} unlike the others): "
        raise UnreadableImage(path, reason + "put each orientation into a series of its own")
    if unlike:
        reason = f"the slices differ in pixel spacing (PixelSpacing of {_some(unlike)} unlike the others): "
        raise UnreadableImage(path, reason + "put each spacing into a series of its own")


def _usual(rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The most frequent of the rows, rounded for the count alone."""
    rounded = [tuple(np.round(row, 3)) for row in rows]
    return rows[rounded.index(Counter(rounded).most_common(1)[0][0])]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
