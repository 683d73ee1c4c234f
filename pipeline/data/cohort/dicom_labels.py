"""A tree of DICOM files joined with a label table, by file, series or patient."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.config.data import DicomSource
from pipeline.core.errors import DataError, UnreadableImage
from pipeline.data.cohort.manifest import read_user_table, require_columns, with_columns
from pipeline.data.readers.dicom import read_header
from pipeline.data.readers.kinds import sniff
from pipeline.data.readers.series import index_series


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


def dicom_rows(source: DicomSource, root: Path, labels: Path) -> pd.DataFrame:
    """One row a file or series below `root`; an image that the table does not name gets an empty label.

    File names in the label table start at the table's own folder or at `root`. A named file that is not there stays as
    a row, for the caller to reject.

    Returns:
        path, label, patient_id, reason ("" = nothing wrong so far), perhaps series_id and split, the table's columns.

    Raises:
        DataError: no DICOM file is there, the table lacks its key column, has a key twice, fits no image, or gives one
            series several labels.
    """
    if not root.is_dir():
        raise DataError(f"{source.path}: there is no such folder. Relative paths start at RADAUG_DATA.")
    images = _files(root) if source.unit == "file" else _series(root)
    if not images:
        raise DataError(f"{source.path}: there is no DICOM image in this folder.")
    table, key = _label_table(source, root, labels)
    index = {name: number for number, name in enumerate(table[key]) if name}
    rows, used = [], set()
    for image in images:
        matches = sorted({index[name] for name in image.keys(source.key) if name in index})
        if len({table["label"].iloc[match] for match in matches}) > 1:
            raise DataError(f"{source.labels}: gives the series in {image.path} more than one label.")
        used.update(matches)
        row = table.iloc[matches[0]].to_dict() if matches else dict.fromkeys(table.columns, "")
        found = {"path": image.path, "reason": image.reason, "patient_id": row["patient_id"] or image.patient_id}
        rows.append(row | found | ({"series_id": image.series_id} if source.unit == "series" else {}))
    if not used:
        raise DataError(
            f"{source.labels}: none of its {len(table)} rows fits one of the {len(images)} images in {source.path}. "
            f"Check data.source.key ({source.key}) and data.source.columns."
        )
    if source.key == "file":
        rows += [table.iloc[number].to_dict() for number in index.values() if number not in used]
    return pd.DataFrame(rows, dtype=str).fillna("")


def _label_table(source: DicomSource, root: Path, labels: Path) -> tuple[pd.DataFrame, str]:
    """The label table under radaug's column names, and the name of its key column."""
    table = read_user_table(labels)
    columns = source.columns
    if source.key == "series" and not columns.series_id:
        columns = columns.model_copy(update={"series_id": "series_id"})
    named = {"file": columns.path, "series": columns.series_id, "patient": columns.patient_id}[source.key]
    wanted = [name for name in (named, columns.label, columns.split) if name]
    require_columns(table, wanted, source.labels, "data.source.columns")
    table = with_columns(table, columns)
    key = {"file": "path", "series": "series_id", "patient": "patient_id"}[source.key]
    if source.key == "file":
        table["path"] = [_place(name, root, labels.parent) for name in table["path"]]
    names = table[key][table[key] != ""]
    if names.duplicated().any():
        raise DataError(
            f"{source.labels}: {int(names.duplicated().sum())} rows repeat the {key} of an earlier row. Keep one."
        )
    return table, key


def _place(name: str, root: Path, beside: Path) -> str:
    if not name:
        return ""
    place = beside / name
    return Path(os.path.relpath(place if place.exists() else root / name, root)).as_posix()


def _files(root: Path) -> list[_Found]:
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")):
        if sniff(path) == "dicom":
            name, header, reason = path.relative_to(root).as_posix(), dict[str, str](), ""
            try:
                header = read_header(path)
            except UnreadableImage as error:
                reason = error.reason
            ids = header.get("series_id", ""), header.get("patient_id", "")
            found.append(_Found(name, *ids, files=(name,), reason=reason))
    return found


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
