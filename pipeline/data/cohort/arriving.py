"""Studies that still arrive: files that changed a moment ago, and all that belongs to them, wait for a later run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pipeline.core.errors import DataError, UnreadableImage
from pipeline.data.cohort.audit_rows import INFO, Row
from pipeline.data.cohort.manifest import shown
from pipeline.data.cohort.sources import SourceRows
from pipeline.data.readers.dicom import read_header
from pipeline.data.readers.kinds import sniff

ARRIVING = "still arriving: it, or its study, changed less than data.settle_seconds before; a later run reads it"
"""Reason in the rejected list. These images do not count towards `data.max_rejected`."""
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")


def young_files(files: Iterable[Path], root: Path, settle_seconds: float) -> tuple[str, ...]:
    """Names, from `root`, of files that the filesystem saw change less than `settle_seconds` ago.

    Taken is the time at which the file's entry last changed (ctime), which a copy that keeps an old modification time
    sets too, and which no scanner's wrong clock can put into the future.
    """
    now = time.time()
    found = []
    for path in files:
        with suppress(OSError):
            if now - path.stat().st_ctime < settle_seconds:
                found.append(_name(path, root))
    return tuple(sorted(found))


def refuse_young_tables(tables: Sequence[Path], root: Path, young: Sequence[str]) -> None:
    """Refuse to read a table, or an archive, that may still be written.

    Raises:
        DataError: as above.
    """
    names = [path.name for path in tables if _name(path, root) in young]
    if names:
        raise DataError(
            f"{shown(names)}: changed less than data.settle_seconds ago and may still be written. Run again later, or "
            "set data.settle_seconds to 0."
        )


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def set_apart(rows: SourceRows, root: Path, young: Sequence[str]) -> tuple[SourceRows, pd.DataFrame, frozenset[str]]:
    """The rows without those whose own files are young.

    Returns:
        the rows that may be read; image_id, path, reason of the others; and the studies of young DICOM files, for
        `without_studies`.
    """
    if not young:
        return rows, rows.rejected.iloc[:0], frozenset()
    torn, studies = _torn(root, young)
    touched = {*young, *(above.as_posix() for name in young for above in Path(name).parents)}
    waits = rows.table["path"].isin(touched)
    waits |= rows.table["path"].map(lambda name: Path(name).parent.as_posix()).isin(torn)
    if "mask" in rows.table:
        waits |= rows.table["mask"].isin(touched)
    bad = rows.rejected["path"].isin(touched)
    apart = pd.concat([rows.table.loc[waits, ["image_id", "path"]], rows.rejected.loc[bad, ["image_id", "path"]]])
    kept = replace(rows, table=rows.table[~waits].reset_index(drop=True), rejected=rows.rejected[~bad])
    return kept, apart.assign(reason=ARRIVING), studies


def without_studies(
    manifest: pd.DataFrame, apart: pd.DataFrame, studies: frozenset[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest without images of studies that still arrive, and the list of what waits with them."""
    if not studies - {""} or manifest.empty:
        return manifest, apart
    waits = manifest["study_id"].isin(studies - {""})
    more = manifest.loc[waits, ["image_id", "path"]].assign(reason=ARRIVING)
    return manifest[~waits].reset_index(drop=True), pd.concat([apart, more], ignore_index=True)


def require_some(manifest: pd.DataFrame, apart: pd.DataFrame, where: str) -> None:
    """Refuse to go on where everything still arrives.

    Raises:
        DataError: as above.
    """
    if manifest.empty and len(apart):
        raise DataError(
            f"{where}: all {len(apart)} images changed less than data.settle_seconds ago and may still arrive. Run "
            "again later, or set data.settle_seconds to 0."
        )


def arriving_rows(number: int) -> list[Row]:
    """The audit's row, where images wait."""
    detail = f"{number} images still arrive and were left out; rejected.csv lists them, and a later run reads them."
    return [("still arriving", INFO, number, detail)] if number else []


def _torn(root: Path, young: Sequence[str]) -> tuple[set[str], frozenset[str]]:
    """Folders of young DICOM files whose header cannot be read yet, and the studies of the others.

    Whatever lies beside a file of which nobody can tell the study may belong to it.
    """
    folders, studies = set[str](), set[str]()
    for name in young:
        try:
            if sniff(root / name) == "dicom":
                studies.add(read_header(root / name).get("study_id", ""))
            elif name.lower().endswith(_DICOM_ENDINGS):
                folders.add(Path(name).parent.as_posix())
        except (UnreadableImage, OSError):
            folders.add(Path(name).parent.as_posix())
    return folders, frozenset(studies)
