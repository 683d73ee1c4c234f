"""A tree of DICOM files joined with a label table, by file, series or patient."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.config.data import Columns, DicomSource
from pipeline.config.loading import PATHS_START
from pipeline.core.errors import DataError, UnreadableImage
from pipeline.data.cohort.audit_rows import WARNING, Row
from pipeline.data.cohort.file_names import found_name
from pipeline.data.cohort.identities import spelling
from pipeline.data.cohort.manifest import REASON, require_columns, row_dicts, shown, spare_columns, with_columns
from pipeline.data.cohort.tables import read_user_table, shown_lines
from pipeline.data.readers.dicom import read_header
from pipeline.data.readers.folders import files_below
from pipeline.data.readers.kinds import sniff, stands_in
from pipeline.data.readers.series import index_series

_ENDINGS = (".dcm", ".dicom", ".ima", ".lnk", ".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".dcm.gz")
"""What is expected to be DICOM, or to hold it (shortcuts, archives), and must not be passed over."""


@dataclass(frozen=True)
class _Found:
    """A file or series of the tree; paths are relative to its root."""

    path: str
    series_id: str
    patient_id: str
    files: tuple[str, ...]
    reason: str = ""

    def keys(self, key: str) -> tuple[str, ...]:
        if key == "file":
            return (*self.files, self.path)
        return (self.series_id,) if key == "series" else (self.patient_id,)


def dicom_rows(source: DicomSource, root: Path, labels: Path) -> tuple[pd.DataFrame, list[Row]]:
    """One row a file or series below `root`; an image that the table does not name gets an empty label.

    File names in the label table start at the table's own folder or at `root`. A row that fits no image stays as a row
    with a reason, for the caller to reject.

    Returns:
        path, label, patient_id, reason ("" = nothing wrong so far), perhaps series_id and split, the table's columns;
        and rows of the audit.

    Raises:
        DataError: no DICOM file is there, the table lacks its key column, has a key twice, fits no image, or gives one
            series several labels.
    """
    if not root.is_dir():
        raise DataError(f"{source.path}: there is no such folder: {root}. {PATHS_START}")
    images = _files(root) if source.unit == "file" else _with_strays(root, _series(root))
    if not any(not image.reason for image in images):
        raise DataError(f"{source.path}: there is no DICOM image in this folder: {root}.")
    table, key = _label_table(source, root, labels)
    index = {name: number for number, name in enumerate(table[key]) if name}
    rows, used, nameless = [], set(), []
    for image in images:
        matches = sorted({index[name] for name in image.keys(source.key) if name in index})
        if len({table["label"].iloc[match] for match in matches}) > 1:
            raise DataError(f"{source.labels}: gives the series in {image.path} more than one label.")
        used.update(matches)
        if not matches:
            nameless.append(image)
        row = table.iloc[matches[0]].to_dict() if matches else dict.fromkeys(table.columns, "")
        found = {"path": image.path, REASON: image.reason, "patient_id": row["patient_id"] or image.patient_id}
        rows.append(row | found | ({"series_id": image.series_id} if source.unit == "series" else {}))
    idle = [number for number in range(len(table)) if number not in used]
    _refuse_other_spelling(source, table, key, idle, nameless)
    if not used:
        raise DataError(
            f"{source.labels}: none of its {len(table)} rows fits one of the {len(images)} images in {source.path} "
            f"({root}). {_first_name(table, root) if source.key == 'file' else ''}Check data.source.key ({source.key}) "
            "and data.source.columns."
        )
    given = row_dicts(table)
    rows += [_idle_row(source, given[number], table.index[number], key, labels) for number in idle]
    return pd.DataFrame(rows, dtype=str).fillna(""), [*spare_columns(table), *_without_row(source, images, nameless)]


def _first_name(table: pd.DataFrame, root: Path) -> str:
    """What the first row names, and the file that differs from it only in letter case."""
    name = str(table["path"].iloc[0])
    other = found_name(root, name, ignore_case=True)
    return f"The first row names {name or 'no file'}{f', and there is {other}' if other != name else ''}. "


def _idle_row(source: DicomSource, row: dict[str, str], line: int, key: str, labels: Path) -> dict[str, str]:
    """A row of the table that fits no image; where the table names no files, it is known by its line."""
    if source.key == "file" and row["path"]:
        return row
    what = {"path": "file", "series_id": "series", "patient_id": "patient"}[key]
    reason = f"the row names no {what}" if not row[key] else f"no image of this {what} is in the tree: check its {key}"
    return row | {"path": f"{labels.name} line {line}", REASON: reason}


def _without_row(source: DicomSource, images: list[_Found], nameless: list[_Found]) -> list[Row]:
    if not nameless:
        return []
    detail = (
        f"{len(nameless)} of {len(images)} images have no row in {source.labels}, so they have no label: "
        f"{shown([image.path for image in nameless], 3)}."
    )
    return [("images without a row in the label table", WARNING, len(nameless), detail)]


def _refuse_other_spelling(
    source: DicomSource, table: pd.DataFrame, key: str, idle: list[int], nameless: list[_Found]
) -> None:
    """Refuse rows that fit an image but for what a spreadsheet does to ids: they would be passed over."""
    if key == "path":
        return
    forms = {spelling(name): image for image in nameless for name in image.keys(source.key) if name}
    fitting = [number for number in idle if table[key].iloc[number] and spelling(table[key].iloc[number]) in forms]
    if fitting:
        first = forms[spelling(table[key].iloc[fitting[0]])]
        raise DataError(
            f"{source.labels}: {len(fitting)} row(s) have a {key} that fits no image, though but for leading zeros, a "
            f"trailing .0, letter case or spaces it would: {shown_lines([table.index[n] for n in fitting])}; the "
            f"first is that of {first.path}. Spreadsheets drop leading zeros: import the column as text, and write "
            "the ids as the headers have them."
        )


def _label_table(source: DicomSource, root: Path, labels: Path) -> tuple[pd.DataFrame, str]:
    """The label table under radaug's column names, and the name of its key column."""
    table = read_user_table(labels)
    columns = source.columns
    if source.key == "series" and not columns.series_id:
        columns = columns.model_copy(update={"series_id": "series_id"})
    named = {"file": columns.path, "series": columns.series_id, "patient": columns.patient_id}[source.key]
    by_default = {Columns().split} - {*table.columns}
    wanted = [name for name in (named, columns.label, columns.split) if name and name not in by_default]
    require_columns(table, wanted, source.labels, "data.source.columns")
    table = with_columns(table, columns)
    key = {"file": "path", "series": "series_id", "patient": "patient_id"}[source.key]
    if source.key == "file":
        table["path"] = [_place(name, root, labels.parent) for name in table["path"]]
    names = table[key][table[key] != ""]
    repeated = names[names.duplicated(keep=False)]
    if len(repeated):
        first = list(repeated.index[repeated == repeated.iloc[0]])
        raise DataError(
            f"{source.labels}: {int(names.duplicated().sum())} rows repeat the {key} of an earlier row, the first: "
            f"{shown_lines(first)}. Keep one."
        )
    return table, key


def _place(name: str, root: Path, beside: Path) -> str:
    if not name:
        return ""
    name = name.replace("\\", "/")
    place = beside / found_name(beside, name)
    return Path(os.path.relpath(place if place.exists() else root / found_name(root, name), root)).as_posix()


def _files(root: Path) -> list[_Found]:
    """Every DICOM file below `root`, and what is called one and is none."""
    found = []
    for path in files_below(root):
        name, header, reason = path.relative_to(root).as_posix(), dict[str, str](), ""
        try:
            if sniff(path) != "dicom":
                if not path.name.lower().endswith(_ENDINGS):
                    continue
                raise UnreadableImage(path, _stray(path))
            header = read_header(path)
        except UnreadableImage as error:
            reason = error.reason
        ids = header.get("series_id", ""), header.get("patient_id", "")
        found.append(_Found(name, *ids, (name,), reason))
    return found


def _stray(path: Path) -> str:
    """Why a file of one of `_ENDINGS` is no DICOM image."""
    if path.name.lower().endswith(".lnk"):
        return "this is a shortcut, which cannot be followed: copy what it leads to"
    return stands_in(path) or "this is another kind of image: take it out of the tree"


def _with_strays(root: Path, series: list[_Found]) -> list[_Found]:
    """The series, and what should be or hold one and is none; among the slices of a series, reading it names that."""
    folders = {(root / name).parent for one in series for name in one.files}
    strays = [
        path
        for path in files_below(root)
        if path.name.lower().endswith(_ENDINGS) and path.parent not in folders and sniff(path) != "dicom"
    ]
    named = [path.relative_to(root).as_posix() for path in strays]
    found = [_Found(name, "", "", (name,), _stray(path)) for name, path in zip(named, strays, strict=True)]
    return [*series, *found]


def _series(root: Path) -> list[_Found]:
    found = []
    for series_id, files in index_series(root).items():
        patients = set()
        for path in files:
            try:
                patients.add(read_header(path).get("patient_id", ""))
            except UnreadableImage:
                continue  # reading the series names the damaged slice
        folder = Path(os.path.commonpath([path.parent for path in files])).relative_to(root).as_posix()
        if len(patients) > 1:
            raise DataError(f"{folder}: slices of one series carry different patient ids. Take the series apart first.")
        names = tuple(path.relative_to(root).as_posix() for path in files)
        single = names[0] if len(names) == 1 else folder
        found.append(_Found(single, series_id, "".join(patients), names))
    return found
