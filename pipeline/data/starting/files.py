"""What lies in a folder: images by their content, tables, npz files, and the rest."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.errors import UnreadableImage, UserError
from pipeline.data.images import read_image
from pipeline.data.readers.dicom import read_header
from pipeline.data.readers.folders import files_below, is_lost_link
from pipeline.data.readers.image import Image
from pipeline.data.readers.kinds import sniff, stands_in
from pipeline.data.starting.words import says_mask, stem, without_mask_words

TABLES = (".csv", ".tsv")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
FEWEST_SLICES = 8
"""Files of half of the series at least, for DICOM files to be taken for volumes."""
_LOOKED_AT = 5


@dataclass(frozen=True)
class Item:
    """An image: a file, or the folder of a DICOM series.

    Attributes:
        header: what a DICOM header says (patient_id, series_id, sop_instance_id …), empty for other kinds.
        inside: files of a series.
    """

    path: Path
    kind: str
    header: dict[str, str] = field(default_factory=dict)
    inside: tuple[Path, ...] = ()

    @property
    def patient(self) -> str:
        return self.header.get("patient_id", "")


@dataclass(frozen=True)
class Around:
    """What `look_around` found; `masks` are by the path of their image, None where it is not clear whose they are."""

    folder: Path
    items: tuple[Item, ...]
    masks: tuple[tuple[Path, Path | None], ...]
    tables: tuple[Path, ...]
    archives: tuple[Path, ...]
    others: tuple[Path, ...]


def look_around(folder: Path) -> Around:
    """List what lies below `folder`; hidden files and what systems leave behind are passed over.

    Raises:
        UnreadableImage: a folder may not be read.
    """
    kinds: dict[Path, str] = {}
    tables: list[Path] = []
    archives: list[Path] = []
    others: list[Path] = []
    for path in files_below(folder):
        ending = path.suffix.lower()
        kind = "unknown" if is_lost_link(path) or ending in TABLES else sniff(path)
        if kind != "unknown":
            kinds[path] = kind
        else:
            (tables if ending in TABLES else archives if ending == ".npz" else others).append(path)
    masks = _masks(kinds, folder)
    items = tuple(Item(path, kind, _header(path, kind)) for path, kind in kinds.items() if path not in masks)
    return Around(folder, items, tuple(masks.items()), tuple(tables), tuple(archives), tuple(others))


def nothing_readable(around: Around) -> str:
    """Why a folder without an image has none, by its first file."""
    if not around.others:
        return "it is empty" if not (around.tables or around.archives) else "it holds no image"
    first = around.others[0]
    name, count = first.relative_to(around.folder), len(around.others)
    return f"of its {count} files the first, {name}, is none: {stands_in(first)}"


def as_volumes(items: Sequence[Item]) -> tuple[Item, ...] | None:
    """One item a DICOM series, where most files are slices of such; None where they are single images."""
    series: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        series[item.header.get("series_id", "")].append(item)
    sizes = sorted(map(len, series.values()))
    if "" in series or sizes[len(sizes) // 2] < FEWEST_SLICES:
        return None
    found = []
    for parts in series.values():
        folder = Path(os.path.commonpath([item.path.parent for item in parts]))
        found.append(Item(folder, "dicom", parts[0].header, tuple(item.path for item in parts)))
    return tuple(found)


def looked_at(items: Sequence[Item]) -> tuple[list[Image], int]:
    """A few of the images, and how many dimensions most of them have.

    Raises:
        UserError: none of them can be read; the message says why the first one cannot.
    """
    count = 2 if items[0].inside else _LOOKED_AT
    chosen = [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]
    flat: list[Image] = []
    deep: list[Image] = []
    reasons: list[str] = []
    for item in {item.path: item for item in chosen}.values():
        for dims, found in ((2, flat), (3, deep)):
            try:
                found.append(read_image(item.path, spatial_dims=dims, series_id=item.header.get("series_id") or None))
                break
            except UnreadableImage as error:
                reasons.append(f"{item.path.name}: {error.reason}")
    if not flat and not deep:
        raise UserError(f"None of the images that were tried can be used. The first, {reasons[0]}")
    return (flat, 2) if len(flat) >= len(deep) else (deep, 3)


def _header(path: Path, kind: str) -> dict[str, str]:
    try:
        return read_header(path) if kind == "dicom" else {}
    except UnreadableImage:
        return {}  # reading the image names what is wrong


def _masks(kinds: dict[Path, str], folder: Path) -> dict[Path, Path | None]:
    """Files that hold masks: in a folder called so, or beside an image whose name theirs goes on."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in kinds:
        by_stem[stem(path.name).lower()].append(path)
    found: dict[Path, Path | None] = {}
    for path in kinds:
        inside = any(says_mask(part) for part in path.relative_to(folder).parts[:-1])
        if not inside and not says_mask(stem(path.name)):
            continue
        own = stem(path.name).lower()
        shared = {without_mask_words(own), *([own] if inside else [])}
        near = [one for name in shared for one in by_stem.get(name, []) if one != path and not _in_masks(one, folder)]
        beside = [one for one in near if one.parent == path.parent]
        if inside or beside:
            whose = beside or near
            found[path] = whose[0] if len(whose) == 1 else None
    return found


def _in_masks(path: Path, folder: Path) -> bool:
    return any(says_mask(part) for part in path.relative_to(folder).parts[:-1])
