"""From a folder, a table or an npz file to the lines of a first configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config.by_name import or_nearest
from pipeline.config.data import Columns as Named
from pipeline.core.errors import UserError
from pipeline.core.patients import known_patients, num_known, patient_units
from pipeline.data.readers.image import Image
from pipeline.data.readers.kinds import sniff
from pipeline.data.starting.archives import read_archive
from pipeline.data.starting.cohort import Cohort, Given, gather
from pipeline.data.starting.files import Around, Item, as_volumes, look_around, looked_at, nothing_readable
from pipeline.data.starting.tables import PATH, PATIENT, SERIES
from pipeline.data.starting.words import disease_side

HOLDOUT = {"kind": "holdout", "val": 0.2, "test": 0.3}
FEW_PATIENTS = 10
"""Of the smaller side: with fewer, a holdout tests hardly three of it."""
_GROUPS = {"png": "PNG and JPEG", "jpeg": "PNG and JPEG", "dicom": "DICOM", "nifti": "NIfTI", "npy": "npy"}
_SIDES = {2: ((64, 64), (28, 32), (24, 24), (0, 16)), 3: ((28, 32), (20, 24), (0, 16))}
"""By dimensions: images at least so large get that size."""


@dataclass(frozen=True)
class Line:
    """A key of `data:`, its value and why it is so; a path in `source` is absolute."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True)
class Guess:
    """A first configuration.

    Attributes:
        found: what lies there, in a sentence.
        doubts: what the user must look at.
        table: to be written beside the configuration, where neither folders nor a table say it all; the source's path
            is then empty.
    """

    found: str
    lines: tuple[Line, ...]
    doubts: tuple[str, ...] = ()
    table: pd.DataFrame | None = None


def guess(path: Path) -> Guess:
    """Look at a folder, a table or an npz file, and say how a first configuration reads.

    Raises:
        UserError: it is not there, nothing in it can be read, or there are not two classes of several patients.
    """
    path = path.expanduser()
    if not path.exists():
        near = or_nearest(path.name, [one.name for one in path.absolute().parent.glob("*")])
        raise UserError(f"{path}: there is no such folder or file{near}.")
    path = path.absolute()
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return _from_archive(path)
        if sniff(path) != "unknown":
            raise UserError(f"{path}: is one image. Give the folder of all images, or a table that names them.")
        return _from_images(look_around(path.parent), path)
    around = look_around(path)
    if not around.items and around.archives:
        if len(around.archives) > 1:
            names = ", ".join(str(one.relative_to(path)) for one in around.archives[:5])
            raise UserError(f"{path}: holds {len(around.archives)} npz files. Give one of them: {names}.")
        return _from_archive(around.archives[0])
    return _from_images(around, None)


def _from_images(around: Around, table: Path | None) -> Guess:
    if not around.items:
        raise UserError(f"{around.folder}: no image that radaug reads is here: {nothing_readable(around)}.")
    items, doubts = _one_kind(around)
    items = as_volumes(items) or items
    samples, dims = looked_at(items)
    cohort = gather(around, items, table)
    whole = len(items) == len(around.items) and not around.masks
    _masks(cohort, around)
    doubts += cohort.doubts
    source, written = _source(cohort, around, items, samples, dims, whole)
    classes, positive, sides = _sides(sorted(set(cohort.images["label"])))
    if not sides.sure:
        doubts.append(f"Nothing says which side is the disease: {', '.join(positive)} is taken. Check `positive`.")
    unknown = known_patients(cohort.images) == ""
    patients = num_known(cohort.images) if not unknown.any() else 0
    of = f"of {patients} patients" if patients else "whose patients are not all known"
    kind = "volumes" if dims == 3 else "images"
    found = f"{len(cohort.images)} {kind} ({_named_kinds(items)}) {of}, in {len(classes)} classes"
    split, why = _split(cohort, positive)
    lines = (
        source,
        Line("spatial_dims", dims, _why_dims(items, dims)),
        _size([image.array.shape[1:] for image in samples], dims),
        Line("classes", classes, cohort.why["classes"]),
        Line("positive", positive, sides.why),
        Line("split", split, why),
        Line("duplicates", "drop", "a training image that is an exact copy of a tested one is left out, and listed"),
    )
    return Guess(found, lines, tuple(doubts), written)


def _split(cohort: Cohort, positive: Sequence[str]) -> tuple[dict[str, Any], str]:
    if "split" in cohort.why:
        return {"kind": "column"}, cohort.why["split"]
    images = cohort.images
    units = patient_units(images.assign(image_id=images["path"]))
    diseased = images["label"].isin(positive)
    smaller = min(int(units[side].nunique()) for side in (diseased, ~diseased))
    if smaller < FEW_PATIENTS:
        return {"kind": "kfold", "folds": 3}, f"only {smaller} patients on one side: in three folds each is tested once"
    return HOLDOUT, "drawn by patient"


def _from_archive(path: Path) -> Guess:
    classes, named_by, splits, shape = read_archive(path)
    doubts = ["NO PATIENT IS NAMED in the file, so EACH IMAGE COUNTS AS A PATIENT: see source.patients."]
    if not named_by:
        doubts.append("The file does not name its classes: write their names, in the order of the labels.")
    _, positive, why = disease_side(classes)
    if not why:
        doubts.append(f"Nothing says which side is the disease: {', '.join(positive)} is taken. Check `positive`.")
    own = {"train", "test"} <= {*splits}
    dims = len(shape)
    if dims not in (2, 3):
        raise UserError(f"{path}: one image has the shape {shape}. Grey images of 2 or 3 axes are needed.")
    lines = (
        Line("source", {"kind": "npz", "path": str(path)}, "a file as MedMNIST's"),
        Line("spatial_dims", dims, f"one image is {_times(shape)}"),
        _size([shape], dims),
        Line("classes", list(classes), named_by or "CHECK: label 0, 1, …"),
        Line("positive", positive, why or "CHECK"),
        Line("split", {"kind": "column"} if own else HOLDOUT, "the file's own" if own else "the file has none"),
        Line("duplicates", "drop", "a training image that is an exact copy of a tested one is left out, and listed"),
    )
    return Guess(f"{path.name} with {' and '.join(splits)}, {len(classes)} classes", lines, tuple(doubts))


def _one_kind(around: Around) -> tuple[tuple[Item, ...], list[str]]:
    """The images of the commonest kind: one cohort is flat, or it is not."""
    groups: dict[str, list[Item]] = {}
    for item in around.items:
        groups.setdefault(_GROUPS[item.kind], []).append(item)
    most = max(groups, key=lambda name: len(groups[name]))
    left = [f"{len(items)} {name} files" for name, items in groups.items() if name != most]
    return tuple(groups[most]), [f"{' and '.join(left)} beside the {most} files are left out."] if left else []


def _masks(cohort: Cohort, around: Around) -> None:
    """Give each image its mask, where there is just one."""
    if not around.masks:
        return
    whose = pd.Series([str(image) for _, image in around.masks if image], dtype=str)
    single = {str(image): str(mask) for mask, image in around.masks if image}
    several = set(whose[whose.duplicated()])
    images = cohort.images
    images = images.assign(mask=[single[one] if one in single and one not in several else "" for one in images["path"]])
    with_mask = int((images["mask"] != "").sum())
    cohort.images = images if with_mask else images.drop(columns="mask")
    cohort.plain = False
    cohort.doubts.append(
        f"{len(around.masks)} files are masks by their names and no images; {with_mask} images have one (column mask)."
    )


def _source(
    cohort: Cohort, around: Around, items: Sequence[Item], samples: Sequence[Image], dims: int, whole: bool
) -> tuple[Line, pd.DataFrame | None]:
    """The source that says it all by itself, else a table of what was found, to be written."""
    patients = f"patients: {cohort.why['patients']}"
    simple = None
    if cohort.plain:
        simple = _from_table(cohort, around, items, whole) or _from_class_folders(cohort, around, items, whole)
    unit = _unit(items[0].kind, samples)
    if simple:
        return Line("source", simple | (unit if simple["kind"] != "dicom" else {}), patients), None
    columns, table = _table(cohort, items)
    source: dict[str, Any] = {"kind": "csv", "path": ""} | ({"columns": columns} if columns else {}) | unit
    return Line("source", source, f"a table of what was found, written beside this file; {patients}"), table


def _from_table(cohort: Cohort, around: Around, items: Sequence[Item], whole: bool) -> dict[str, Any] | None:
    """The user's own table as a source, where nothing must be added to it."""
    given, series = cohort.given, bool(items[0].inside)
    if given is None:
        return None
    key = {PATH: "file", SERIES: "series", PATIENT: "patient"}.get(given.match.how)
    if key and items[0].kind == "dicom" and not (series and key == "file"):
        source: dict[str, Any] = {"kind": "dicom", "path": str(around.folder), "labels": str(given.path)}
        return source | {"unit": "series" if series else "file", "key": key, "columns": _named(given, key)}
    if given.match.how == PATH and whole and not cohort.pattern:
        columns = _named(given, "path")
        return {"kind": "csv", "path": str(given.path)} | ({"columns": columns} if columns else {})
    return None


def _from_class_folders(cohort: Cohort, around: Around, items: Sequence[Item], whole: bool) -> dict[str, Any] | None:
    """The folders themselves as a source, where all files in them are images."""
    if cohort.given or not whole or cohort.label_level is None or items[0].inside:
        return None
    first = Path(cohort.images["path"].iloc[0])
    root = Path(*first.parts[: len(around.folder.parts) + cohort.label_level])
    others = (*around.others, *around.tables, *around.archives)
    if any(one.is_relative_to(root) and one.parent != root for one in others):
        return None
    pattern = {"patient_pattern": cohort.pattern} if cohort.pattern else {}
    return {"kind": "folders", "path": str(root)} | pattern


def _table(cohort: Cohort, items: Sequence[Item]) -> tuple[dict[str, str], pd.DataFrame]:
    """A table of what was found, and its columns that radaug does not look for by itself."""
    table = cohort.images.drop(columns="number", errors="ignore")
    columns = {"mask": "mask"} if "mask" in table else {}
    if (table["split"] == "").all():
        table = table.drop(columns="split")
    if items[0].inside:
        series = {str(item.path): item.header["series_id"] for item in items}
        table, columns["series_id"] = table.assign(series_id=table["path"].map(series)), "series_id"
    return columns, table


def _named(given: Given, key: str) -> dict[str, str]:
    """The table's columns where they are not called as radaug calls them."""
    patient = given.columns.patient or (given.match.column if key == "patient" else "")
    wanted = {"label": given.columns.label, "patient_id": patient}
    if given.columns.split:
        wanted["split"] = given.columns.split
    if key in ("path", "file"):
        wanted["path"] = given.match.column
    if key == "series":
        wanted["series_id"] = given.match.column
    return {name: column for name, column in wanted.items() if column != getattr(Named(), name)}


@dataclass(frozen=True)
class _Why:
    why: str
    sure: bool


def _sides(names: list[str]) -> tuple[list[str], list[str], _Why]:
    negative, positive, why = disease_side(names)
    return [*negative, *positive], positive, _Why(why or "CHECK: nothing says which side is the disease", bool(why))


def _unit(kind: str, samples: Sequence[Image]) -> dict[str, str]:
    """Files that state no unit: HU where they reach -500, grey levels where nothing lies below 0, else not said."""
    if kind not in ("nifti", "npy"):
        return {}
    lowest = min(float(image.array.min()) for image in samples)
    return {"unit_of_values": "HU"} if lowest <= -500 else {"unit_of_values": "none"} if lowest >= 0 else {}


def _size(shapes: Sequence[Sequence[int]], dims: int) -> Line:
    side = min(min(shape) for shape in shapes)
    size = next(size for least, size in _SIDES[dims] if side >= least)
    smallest, largest = min(shapes, key=max), max(shapes, key=max)
    seen = _times(smallest) if tuple(smallest) == tuple(largest) else f"{_times(smallest)} to {_times(largest)}"
    return Line("spatial_size", size, f"images are {seen}; small ones train in minutes")


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _why_dims(items: Sequence[Item], dims: int) -> str:
    if items[0].inside:
        return f"DICOM files are slices of {len(items)} series"
    return f"{_named_kinds(items)} files are {'volumes' if dims == 3 else 'flat'}"


def _named_kinds(items: Sequence[Item]) -> str:
    names = {"nifti": "NIfTI", "npy": "npy"}
    return " and ".join(sorted({names.get(item.kind, item.kind.upper()) for item in items}))
