"""What a user gives to a finished run: a file, a series, a folder of these, or a table that names some."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.config.data import Columns, CsvSource, FoldersSource, Source
from pipeline.core.errors import DataError, UnreadableImage
from pipeline.data.cohort.manifest import REJECTED_COLUMNS, image_ids
from pipeline.data.cohort.sources import read_source
from pipeline.data.cohort.tables import read_user_table
from pipeline.data.readers.folders import files_below
from pipeline.data.readers.kinds import sniff, stands_in
from pipeline.data.readers.series import index_series

TABLES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Given:
    """Images that were named, none of them read.

    Attributes:
        source: as a configuration would name it, its path absolute; the rows' paths start at its root.
        rows: image_id and path, perhaps series_id, mask and point_*. All text.
        refused: image_id, path and reason of those that cannot be images.
    """

    source: Source
    rows: pd.DataFrame
    refused: pd.DataFrame


def given_images(path: Path, spatial_dims: int, columns: Columns) -> Given:
    """The images that `path` names: itself, those of a folder or a series, or those of a table's column `path`.

    Args:
        columns: names that a table may have for series, masks and points.

    Raises:
        DataError: there is no such path, nothing in it is an image, or the table cannot be read.
    """
    path = Path(os.path.abspath(path))
    if path.is_dir():
        return _of_folder(path, spatial_dims)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file or folder. Check the path.")
    if path.suffix.lower() in TABLES and sniff(path) == "unknown":
        return _of_table(path, spatial_dims, columns)
    rows = pd.DataFrame({"image_id": image_ids([path.name]), "path": [path.name]}, dtype=str)
    return Given(CsvSource(kind="csv", path=str(path)), rows, _refused([]))


def _of_table(path: Path, spatial_dims: int, columns: Columns) -> Given:
    there = list(read_user_table(path).columns)
    if "path" not in there:
        raise DataError(
            f"{path.name}: has no column path, for the images' files. It has: {', '.join(there)}. Rename one."
        )
    own = Columns(
        label="",
        patient_id="",
        split="",
        series_id=columns.series_id if columns.series_id in there else "",
        mask=columns.mask if columns.mask in there else "",
        point=columns.point if set(columns.point) <= set(there) else (),
    )
    source = CsvSource(kind="csv", path=str(path), columns=own)
    found = read_source(source, path.parent.resolve(), None, (), spatial_dims)
    return Given(source, found.table, found.rejected)


def _of_folder(folder: Path, spatial_dims: int) -> Given:
    """Every file is an image, but in 3D the DICOM files of a series are one."""
    places, refused = list[tuple[str, str]](), list[tuple[str, str]]()
    try:
        series = index_series(folder) if spatial_dims == 3 else {}
        sliced = {file for files in series.values() for file in files}
        files = [file for file in files_below(folder) if file not in sliced]
    except UnreadableImage as error:
        raise DataError(str(error)) from error
    for file in files:
        name = file.relative_to(folder).as_posix()
        wrong = stands_in(file)
        if wrong:
            refused.append((name, wrong))
        elif not (spatial_dims == 3 and sniff(file) == "dicom"):  # in 3D what is left of DICOM are no images
            places.append((name, ""))
    places += [_series_place(folder, key, files, series) for key, files in series.items()]
    if not places:
        raise DataError(f"{folder}: holds no image ({len(refused)} other files). Name a folder with images.")
    places.sort()
    rows = pd.DataFrame(places, columns=["path", "series_id"], dtype=str)
    rows.insert(0, "image_id", image_ids([name if name != "." else folder.name for name, _ in places]))
    return Given(FoldersSource(kind="folders", path=str(folder)), rows, _refused(refused))


def _series_place(folder: Path, key: str, files: list[Path], series: dict[str, list[Path]]) -> tuple[str, str]:
    """The folder that holds a series' files (or its one file), and the series where others lie there too."""
    if len(files) == 1:
        return files[0].relative_to(folder).as_posix(), ""
    place = Path(os.path.commonpath([file.parent for file in files]))
    alone = not any(file.is_relative_to(place) for other, own in series.items() if other != key for file in own)
    return place.relative_to(folder).as_posix(), "" if alone else key


def _refused(rows: list[tuple[str, str]]) -> pd.DataFrame:
    ids = image_ids([name for name, _ in rows])
    table = [(image, *row) for image, row in zip(ids, rows, strict=True)]
    return pd.DataFrame(table, columns=list(REJECTED_COLUMNS), dtype=str)
