"""The manifest: one row an image, all text. Its columns and the ids of images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from pipeline.config.by_name import or_nearest
from pipeline.config.data import Columns
from pipeline.core.errors import DataError
from pipeline.data.cohort.audit_rows import INFO, Row
from pipeline.data.cohort.identities import spelling

IDENTITY = ("image_id", "path", "label", "patient_id", "split", "series_id", "mask", "point_x", "point_y", "point_z")
"""Given by the source; from `split` on only where the source has them."""
FACTS = ("modality", "body_part", "manufacturer", "model", "kernel", "slice_thickness_mm", "photometric", "sex", "age")
"""Read from image headers, empty where unknown; a column of the user's with the same name wins."""
CONTENT = ("study_id", "spacing_known", "spacing", "size", "values", "minimum", "maximum", "pixel_digest", "near_group")
"""Found by ingest. `values` is uint8, HU or other; `near_group` is shared by images that look the same."""
REASON = "reason (radaug)"
"""Column of a source's rows until they are rejected for it; a column `reason` may be the user's."""
MANY_LABELS = 20
REJECTED_COLUMNS = ("image_id", "path", "reason")
EXTERNAL = "external.csv"
"""The external site's manifest, beside ours."""
IMAGE_ENDINGS = (".nii.gz", ".nii", ".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".npy")


def image_ids(paths: Sequence[str]) -> list[str]:
    """Ids made of `paths` without their ending: letters, digits, `.`, `_` and `-` only, and each one once."""
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    ids = []
    for path in paths:
        ending = next((end for end in IMAGE_ENDINGS if path.lower().endswith(end)), "")
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path[: len(path) - len(ending)]).strip("-.") or "image"
        name = stem
        while name in taken:
            seen[stem] += 1
            name = f"{stem}-{seen[stem] + 1}"
        taken.add(name)
        ids.append(name)
    return ids


def require_columns(table: pd.DataFrame, wanted: Iterable[str], where: str, key: str) -> None:
    """Refuse a table without one of the `wanted` columns, naming those that are there; `key` is the config's."""
    missing = [name for name in wanted if name not in table]
    if missing:
        raise DataError(
            f"{where}: has no column {', '.join(missing)}. It has: {', '.join(table.columns)}. Name yours under {key} "
            f"(an empty name = not there{or_nearest(missing[0], list(map(str, table.columns)))})."
        )


def with_columns(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Give the user's columns radaug's names; a column of the user's that has such a name becomes `source_NAME`."""
    renamed = {columns.path: "path", columns.label: "label", columns.patient_id: "patient_id"}
    renamed |= {columns.split: "split", columns.series_id: "series_id", columns.mask: "mask"}
    renamed |= dict(zip(columns.point, ("point_x", "point_y", "point_z"), strict=False))
    renamed.pop("", None)
    clashing = {name: f"source_{name}" for name in table if name not in renamed and name in (*IDENTITY, "fold", "fate")}
    table = table.rename(columns=clashing | renamed)
    for name in ("label", "patient_id"):
        if name not in table:
            table[name] = ""
    return table


def spare_columns(table: pd.DataFrame) -> list[Row]:
    """Audit rows for columns that `with_columns` set aside, though radaug could use them if it were told to."""
    rows: list[Row] = []
    for name in ("series_id", "mask"):
        if f"source_{name}" in table:
            detail = f"A column {name} is there and not used. Name it in data.source.columns.{name} to use it."
            rows.append((f"column {name}", INFO, len(table), detail))
    return rows


def check_labels(labels: pd.Series, classes: Sequence[str], where: str, *, every_class: bool = True) -> None:
    """Refuse labels outside `classes` ("" = unlabelled is allowed), and, with `every_class`, classes without an image.

    Raises:
        DataError: with the labels found and their counts.
    """
    counts = Counter(str(label) for label in labels if label)
    found = ", ".join(f"{name} ({count})" for name, count in counts.most_common()) or "none"
    if len(counts) > MANY_LABELS:
        found = f"{len(counts)} different ones, too many for classes: is it the right column?"
    forms = {spelling(name) for name in classes}
    if unknown := [name for name in counts if name not in classes]:
        near = any(spelling(name) in forms for name in unknown)
        alike = "Some differ only in letter case, spaces, leading zeros or a trailing .0. " if near else ""
        raise DataError(
            f"{where}: {len(unknown)} label(s) are not in data.classes {list(classes)}. Labels found: {found}. "
            f"{alike}Mend the labels, or name every class in data.classes."
        )
    if every_class and (absent := [name for name in classes if name not in counts]):
        raise DataError(
            f"{where}: no image is labelled {', '.join(absent)}. Labels found: {found}. A comparison needs images of "
            "every class in data.classes."
        )


def validate_manifest(table: pd.DataFrame, classes: Sequence[str], where: str, *, every_class: bool = True) -> None:
    """Check what every later stage relies on; one of several sites need not have images of every class.

    Raises:
        DataError: a column is missing, an image_id is empty or not unique, or the labels do not fit `classes`.
    """
    require_columns(table, ("image_id", "path", "label", "patient_id", "pixel_digest"), where, "data.source.columns")
    if table["image_id"].duplicated().any() or (table["image_id"] == "").any():
        raise DataError(f"{where}: image_id is empty or not unique in some rows.")
    check_labels(table["label"], classes, where, every_class=every_class)


def row_dicts(table: pd.DataFrame) -> list[dict[str, str]]:
    """The rows as plain dictionaries of text."""
    columns = [str(name) for name in table]
    return [dict(zip(columns, map(str, row), strict=True)) for row in table.itertuples(index=False)]


def shown(names: Sequence[str], at_most: int = 5) -> str:
    """The first few of `names` (file names, columns) for a message."""
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")
