"""From what the user has (a table, folders, DICOM files, an npz file, or nothing) to rows of a manifest."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.config.data import Columns, CsvSource, DicomSource, FoldersSource, NpzSource, PhantomSource, Source
from pipeline.config.loading import PATHS_START
from pipeline.core.errors import DataError
from pipeline.data.cohort.audit_rows import INFO, WARNING, Row
from pipeline.data.cohort.dicom_labels import dicom_rows
from pipeline.data.cohort.file_names import found_name
from pipeline.data.cohort.manifest import (
    IDENTITY,
    REASON,
    image_ids,
    require_columns,
    shown,
    spare_columns,
    with_columns,
)
from pipeline.data.cohort.tables import read_user_table, shown_lines
from pipeline.data.images import read_image
from pipeline.data.phantoms.cohort import PhantomSettings, write_cohort
from pipeline.data.readers.folders import files_below, is_lost_link
from pipeline.data.readers.image import Image
from pipeline.data.readers.kinds import sniff, stands_in
from pipeline.data.readers.npz import NpzFile, npz_place, npz_rows

COHORT = "cohort"
_COLUMNS = "data.source.columns"
_NAMELESS = "the row names no image file"
_BESIDE = "lies beside the class folders, so it has no class: put it into one, or take it out"


@dataclass(frozen=True)
class SourceRows:
    """What a source says before any image is read.

    Attributes:
        table: image_id, path (relative to the root), label, patient_id, perhaps split, series_id, mask and point_*,
            then the source's own columns. All text.
        rejected: image_id, path, reason of images that are named but cannot be there.
        notes: rows of the audit.
    """

    table: pd.DataFrame
    rejected: pd.DataFrame
    notes: tuple[Row, ...] = ()


def source_root(source: Source, base: Path) -> Path | None:
    """The folder that the manifest's paths start from: absolute, and None for phantoms, which ingest writes itself."""
    if isinstance(source, PhantomSource):
        return None
    path = base / source.path  # a table may be a link, and its paths start where the link is
    return path.parent.resolve() if isinstance(source, CsvSource | NpzSource) else path.resolve()


def read_source(
    source: Source, root: Path, labels: Path | None, classes: Sequence[str], spatial_dims: int, processes: int = 1
) -> SourceRows:
    """Rows of every image that `source` names; images themselves are not read.

    Args:
        root: as `source_root` gives it; for phantoms the folder that gets the cohort.
        labels: the label table of a DICOM source.
        processes: at most so many simulate phantoms.

    Raises:
        DataError: the source as a whole is wrong; the message names the file or column and the mend.
    """
    notes: list[Row] = []
    if isinstance(source, PhantomSource):
        rows = _phantom_rows(source, root, spatial_dims, processes)
    elif isinstance(source, CsvSource):
        rows = _csv_rows(source, root)
        _refuse_repeated_rows(rows, source.path)
        notes = [*spare_columns(rows), *_without_label(rows, source.path)]
        nameless = rows["path"] == ""
        rows[REASON] = pd.Series("", index=rows.index).mask(nameless, _NAMELESS)
        rows["path"] = rows["path"].mask(nameless, [f"{Path(source.path).name} line {line}" for line in rows.index])
    elif isinstance(source, FoldersSource):
        rows = _folder_rows(source, root, spatial_dims)
    elif isinstance(source, DicomSource):
        if labels is None:
            raise DataError("data.source.labels: a DICOM source needs a label table.")
        rows, notes = dicom_rows(source, root, labels)
    else:
        rows = npz_rows(root / Path(source.path).name, classes, spatial_dims, source.patients)
    return _finished(rows.reset_index(drop=True), root, tuple(notes))


def _refuse_repeated_rows(rows: pd.DataFrame, where: str) -> None:
    """Refuse an image that several rows name, by its path and their lines in the table."""
    named = rows[rows["path"] != ""]
    keys = named["path"] + "#" + named.get("series_id", "")
    repeated = keys[keys.duplicated(keep=False)]
    if len(repeated):
        lines = {key: list(part.index) for key, part in repeated.groupby(repeated, sort=False)}
        culprits = [f"{key.partition('#')[0]} ({shown_lines(found)})" for key, found in lines.items()]
        raise DataError(
            f"{where}: {len(culprits)} image(s) are named by more than one row: {shown(culprits)}. Keep one row each."
        )


def _without_label(rows: pd.DataFrame, where: str) -> list[Row]:
    """An audit row for images without a label: a warning where they are so few that it may be a slip."""
    empty = [int(line) for line in rows.index[rows["label"] == ""]]
    if not empty or len(empty) == len(rows):
        return []
    detail = f"{len(empty)} of {len(rows)} rows of {where} have no label, so their images are unlabelled: "
    severity = WARNING if len(empty) < len(rows) / 2 else INFO
    return [("rows without a label", severity, len(empty), f"{detail}{shown_lines(empty)}.")]


def _finished(rows: pd.DataFrame, root: Path, notes: tuple[Row, ...]) -> SourceRows:
    """Give ids; rows whose files are not there, or with a `reason`, are rejected."""
    series = rows["series_id"] if "series_id" in rows else pd.Series("", index=rows.index)
    rows.insert(0, "image_id", image_ids([_id_text(*pair) for pair in zip(rows["path"], series, strict=True)]))
    reasons = rows.pop(REASON) if REASON in rows else pd.Series("", index=rows.index)
    for column in ("path", "mask"):
        if column in rows:
            absent = pd.Series([_absent(root, name, column) for name in rows[column]], index=rows.index, dtype=str)
            reasons = reasons.mask((reasons == "") & (absent != ""), absent)
    bad = reasons != ""
    first = [column for column in IDENTITY if column in rows]
    ordered = rows[[*first, *(column for column in rows if column not in first)]]
    rejected = ordered.loc[bad, ["image_id", "path"]].assign(reason=reasons[bad])
    return SourceRows(ordered[~bad].reset_index(drop=True), rejected.reset_index(drop=True), notes)


def _absent(root: Path, name: str, column: str) -> str:
    """Why the file that a row names is not there; empty if it is, or none is named."""
    if not name or _file(root, name).exists():
        return ""
    if is_lost_link(root / name):
        return stands_in(root / name)
    other = found_name(root, name, ignore_case=True)
    if other != name:
        return f"the {column} file is not there, but {other} is: mend upper and lower case in the table"
    return f"the {column} file is not there: check the path"


def _id_text(path: str, series_id: str) -> str:
    place = npz_place(path)
    if place:
        split, _, number = place[1].partition("/")
        return f"{split}-{int(number):05d}"
    return f"{path}-{series_id}".strip("./-") if series_id else path


def _file(root: Path, path: str) -> Path:
    place = npz_place(path)
    return root / (place[0] if place else path)


def _csv_rows(source: CsvSource, root: Path) -> pd.DataFrame:
    table = read_user_table(root / Path(source.path).name)
    columns = source.columns
    if len(columns.point) not in (0, 2, 3):
        raise DataError("data.source.columns.point: name two or three columns (x, y and z in mm, LPS).")
    wanted = (
        columns.path,
        columns.label,
        columns.patient_id,
        columns.split,
        columns.series_id,
        columns.mask,
        *columns.point,
    )
    by_default = {Columns().split} - {*table.columns}
    require_columns(table, [name for name in wanted if name and name not in by_default], source.path, _COLUMNS)
    rows = with_columns(table, columns)
    for column in ("path", "mask"):
        if column in rows:
            rows[column] = [found_name(root, _relative(name, root)) for name in rows[column]]
    return rows


def _relative(name: str, root: Path) -> str:
    if not name:
        return ""
    name = name.replace("\\", "/")
    if Path(name).is_absolute() and not Path(name).exists():
        return name
    return Path(os.path.relpath(name, root) if Path(name).is_absolute() else os.path.normpath(name)).as_posix()


def _folder_rows(source: FoldersSource, root: Path, spatial_dims: int) -> pd.DataFrame:
    if not root.is_dir():
        kind = "is a file, not a folder of class folders" if root.is_file() else f"there is no such folder: {root}"
        raise DataError(f"{source.path}: {kind}. {PATHS_START}")
    rows: dict[str, dict[str, str]] = {}
    for path in files_below(root):
        parts = path.relative_to(root).parts
        if len(parts) == 1:
            if not is_lost_link(path) and sniff(path) != "unknown":
                rows[parts[0]] = {"path": parts[0], REASON: _BESIDE}
            continue
        slices = spatial_dims == 3 and len(parts) > 2 and not is_lost_link(path) and sniff(path) == "dicom"
        name = Path(*parts[:-1] if slices else parts).as_posix()
        label = unicodedata.normalize("NFC", parts[0])
        rows.setdefault(name, {"path": name, "label": label, "patient_id": _patient(source, Path(name).name)})
    if not any(REASON not in row for row in rows.values()):
        raise DataError(
            f"{source.path}: has no folders with images, looked for in {root}. Put the images of each class into a "
            "folder of its name."
        )
    return pd.DataFrame(list(rows.values()), dtype=str).fillna("")


def _patient(source: FoldersSource, name: str) -> str:
    if not source.patient_pattern:
        return ""
    try:
        match = re.search(source.patient_pattern, name)
        if match is None:
            raise DataError(
                f"data.source.patient_pattern: does not match the file name {name}. Its patient would be unknown: "
                "mend the pattern, or leave it out."
            )
        return match.group(1)
    except (re.error, IndexError) as error:
        raise DataError(
            r"data.source.patient_pattern: must be a regular expression with one group, such as '^(\d+)_'."
        ) from error


def phantom_settings(source: PhantomSource, spatial_dims: int) -> PhantomSettings:
    return PhantomSettings(
        spatial_dims=3 if spatial_dims == 3 else 2,
        seed=source.seed,
        cysts=source.cysts,
        metastases=source.metastases,
        haemangiomas=source.haemangiomas,
    )


def _phantom_rows(source: PhantomSource, root: Path, spatial_dims: int, processes: int) -> pd.DataFrame:
    table = write_cohort(root / COHORT, phantom_settings(source, spatial_dims), processes)
    table = table.astype(str).rename(columns={"file": "path"})
    for column in ("path", "mask", "kernel_pair"):
        table[column] = f"{COHORT}/" + table[column]
    table["modality"] = "CT"
    return table


class ImageReader:
    """Reads the images and masks of manifest rows below `root`; an npz file is opened once."""

    def __init__(self, root: Path, spatial_dims: int) -> None:
        self.root = root
        self._spatial_dims = spatial_dims
        self._npz: dict[str, NpzFile] = {}

    def image(self, row: dict[str, str]) -> Image:
        """The image of a manifest row.

        Raises:
            UnreadableImage: it cannot be used; `reason` is a sentence with the mend.
        """
        place = npz_place(row["path"])
        if place:
            name, number = place
            if name not in self._npz:
                self._npz[name] = NpzFile(self.root / name)
            return self._npz[name].image(number)
        return read_image(
            self.root / row["path"], spatial_dims=self._spatial_dims, series_id=row.get("series_id") or None
        )

    def mask(self, row: dict[str, str]) -> Image:
        """The lesion mask of a manifest row, above 0 inside."""
        return read_image(self.root / row["mask"], spatial_dims=self._spatial_dims)


def source_files(source: Source, root: Path, labels: Path | None) -> list[Path]:
    """Every file that the source reads, for telling whether something changed."""
    if isinstance(source, CsvSource):
        table = root / Path(source.path).name
        rows = _csv_rows(source, root)
        named = {root / name for column in ("path", "mask") if column in rows for name in rows[column] if name}
        inside = {file for path in named for file in (files_below(path) if path.is_dir() else [path])}
        return [table, *sorted(inside)]
    if isinstance(source, NpzSource):
        return [root / Path(source.path).name]
    return [*([labels] if labels else []), *files_below(root)]
