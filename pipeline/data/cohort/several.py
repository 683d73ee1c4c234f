"""Several sites in one manifest: ids of their own, and values that mean the same."""

from __future__ import annotations

import pandas as pd

from pipeline.config.sites import SITE_COLUMN
from pipeline.core.errors import DataError
from pipeline.core.patients import known_patients

_PREFIXED = ("patient_id", "near_group")


def with_site(manifest: pd.DataFrame, name: str) -> pd.DataFrame:
    """The manifest of the site `name` under ids that no other site can have; its own column `site` is `source_site`."""
    table = manifest.rename(columns={SITE_COLUMN: f"source_{SITE_COLUMN}"})
    table = table.assign(image_id=f"{name}-" + table["image_id"], patient_id=known_patients(table))
    for column in _PREFIXED:
        table[column] = table[column].mask(table[column] != "", f"{name}-" + table[column])
    return table.assign(**{SITE_COLUMN: name})


def own_ids(manifest: pd.DataFrame) -> pd.DataFrame | None:
    """A manifest with the patient ids as the sites gave them; None where it is not of several sites."""
    if SITE_COLUMN not in manifest or "patient_id" not in manifest:
        return None
    prefix = manifest[SITE_COLUMN] + "-"
    own = [
        text.removeprefix(start) for text, start in zip(manifest["patient_id"], prefix, strict=True)
    ]  # fmt: skip
    return manifest.assign(patient_id=own)


def refuse_units(manifest: pd.DataFrame) -> None:
    """Refuse sites of which some are in HU and some are not: no window serves both.

    Raises:
        DataError: it names the sites.
    """
    in_hu = manifest["values"] == "HU"
    if in_hu.any() and not in_hu.all():
        with_hu, without = (sorted(set(manifest[SITE_COLUMN][side])) for side in (in_hu, ~in_hu))
        raise DataError(
            f"data.sources: images of {', '.join(with_hu)} are in HU and images of {', '.join(without)} are not, so "
            "one window cannot serve both. Export them alike, or set unit_of_values of a source."
        )
