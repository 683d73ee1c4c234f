"""Cells of site and class: where each image of a cohort lies, and which cells training hardly knows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.core.errors import DataError
from pipeline.core.patients import patient_units

RARE, COMMON = "rare", "common"
CELL_COLUMNS = ("site", "cell")
"""Of predictions.csv, where there are sites."""


def require_sites(manifest: pd.DataFrame, column: str, named: Sequence[str] = ()) -> None:
    """Check that every image has a site.

    Args:
        manifest: of labelled images, the external site's not among them.
        named: what its values must be; nothing = whatever they are.

    Raises:
        DataError: there is no such column, a cell of it is empty, all images have one site, an image has none of those
            that are named, or one of these has no image.
    """
    if column not in manifest:
        raise DataError(
            f"data.site: the manifest has no column {column}. It has: {', '.join(map(str, manifest.columns))}."
        )
    values = manifest[column].astype(str).str.strip()
    empty = values == ""
    if empty.any():
        raise DataError(
            f"data.site: {int(empty.sum())} of {len(manifest)} labelled images have no value in the column {column}, "
            f"the first: {manifest['path'][empty].iloc[0]}. Name a site for each, or take these images out."
        )
    if values.nunique() < 2:
        raise DataError(
            f"data.site: all images have one value in the column {column}, so there is nothing to compare across "
            "sites. Leave data.site empty, or name another column."
        )
    other, absent = ~values.isin(named), sorted(set(named) - set(values))
    if named and (other.any() or absent):
        lacking = f" No image is of {', '.join(absent)}." if absent else ""
        raise DataError(
            f"data.site_names: {int(other.sum())} of {len(manifest)} labelled images have another value than "
            f"{list(named)} in the column {column}.{lacking} Name every site of that column, as it is written there."
        )


def require_one_site_a_patient(manifest: pd.DataFrame, column: str) -> None:
    """Check that no patient is in two cells of site and class, for figures that count patients.

    Args:
        manifest: of labelled images that all have a site.

    Raises:
        DataError: some patients have images of several sites.
    """
    sites = manifest[column].astype(str).str.strip().groupby(patient_units(manifest)).nunique()
    if several := int((sites > 1).sum()):
        raise DataError(
            f"data.site: {several} of {len(sites)} patients have images of several sites ({column}), so that a patient "
            "is in no one cell of site and class. Set verdict.unit: image."
        )


def cell_name(site: str, label: str) -> str:
    return f"{label} of {site}"


def cells_named(table: pd.DataFrame, column: str) -> pd.Series:
    """`LABEL of SITE` for each image, and nothing for one without a label."""
    named = [
        cell_name(site, label) if label else "" for site, label in zip(table[column], table["label"], strict=True)
    ]  # fmt: skip
    return pd.Series(named, index=table.index, dtype=str)


def cell_counts(site: pd.Series, label: pd.Series) -> pd.DataFrame:
    """Images of every site (rows) and class (columns)."""
    return pd.crosstab(site.rename("site"), label.rename("label"))


def cells_of(site: pd.Series, label: pd.Series, counts: pd.DataFrame) -> pd.Series:
    """`rare` or `common` for each image.

    A cell is rare if it has fewer images in `counts` than if site and class were independent: the sum over its site
    times the sum over its class, divided by all. Without an association no cell is rare. A cell of a site or class that
    `counts` does not know is rare.
    """
    expected = counts.sum(axis=1).to_numpy()[:, None] * counts.sum(axis=0).to_numpy()[None, :] / counts.to_numpy().sum()
    common = pd.DataFrame(counts.to_numpy() >= expected - 1e-9, index=counts.index, columns=counts.columns)
    known = {(str(one), str(name)) for one in common.index for name in common.columns if common.loc[one, name]}
    cells = [COMMON if pair in known else RARE for pair in zip(site.astype(str), label.astype(str), strict=True)]
    return pd.Series(cells, index=site.index, dtype=str)


def with_cells(members: pd.DataFrame) -> pd.DataFrame:
    """`members` with a column `cell`, by the labelled training images of each fold.

    Args:
        members: fold, split, site and label; one row for every image in every fold.
    """
    parts = []
    for _, part in members.groupby("fold"):
        trained = part[(part["split"] == "train") & (part["label"] != "")]
        counts = cell_counts(trained["site"], trained["label"])
        parts.append(part.assign(cell=cells_of(part["site"], part["label"], counts)))
    return pd.concat(parts)
