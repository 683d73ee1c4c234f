"""What the numbers of images mean, HU or not: stated, told by the user or guessed, and alike in a cohort."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.core.errors import DataError, UnreadableImage
from pipeline.data.cohort.audit_rows import INFO, WARNING, Row
from pipeline.data.cohort.manifest import shown
from pipeline.data.readers.image import Image
from pipeline.data.readers.plausible import AIR_AT_MOST, hu_fault

UNIT_FROM, SIDES_KNOWN = "unit_from", "sides_known"
"""Columns that ingest keeps only until the cohort is checked: who says the unit; whether left is told from right."""
STATED, TOLD, GUESSED = "file", "user", "guess"
_PICTURES = (".png", ".jpg", ".jpeg")
_VOLUMES = (".nii", ".nii.gz")
_MEND = "Say so with data.source.unit_of_values (HU or none) or, image by image, in a column modality (CT is in HU)"


def unit_of(path: str, image: Image, modality: str, told: str) -> tuple[str, str]:
    """The kind of an image's values (HU, uint8 or other), and who says so (STATED, TOLD or GUESSED).

    A DICOM file states its unit. Of other files the user's `told` (`data.source.unit_of_values`) is believed, else the
    user's `modality`: CT is in HU (but not PNG and JPEG, which are grey levels), anything else is not.

    Raises:
        UnreadableImage: the user says HU, and the values cannot be.
    """
    picture = path.lower().endswith(_PICTURES)
    unit, source = image.unit, GUESSED
    if image.unit_stated:
        source = STATED
    elif told or (modality and not picture):
        unit, source = (told or ("HU" if modality == "CT" else "none")), TOLD
        if unit == "HU" and picture:
            reason = "a PNG or JPEG holds no negative numbers, so its values are not HU, as data.source.unit_of_values "
            raise UnreadableImage(path, reason + "says: give NIfTI, npy or DICOM, or leave the key out")
        if unit == "HU" and (fault := hu_fault(image.array)):
            raise UnreadableImage(path, fault)
    array = image.array
    whole = bool(array.min() >= 0 and array.max() <= 255 and np.all(array == np.rint(array)))
    return ("HU" if unit == "HU" else "uint8" if whole else "other"), source


def require_one_unit(manifest: pd.DataFrame, where: str) -> None:
    """Refuse a cohort of which some images are in HU and some are not, naming those of the smaller part.

    Raises:
        DataError: as above.
    """
    in_hu = manifest["values"] == "HU"
    if in_hu.all() or not in_hu.any():
        return
    few = in_hu if in_hu.sum() <= (~in_hu).sum() else ~in_hu
    raise DataError(
        f"{where}: {int(in_hu.sum())} images are in HU and {int((~in_hu).sum())} are not; "
        f"{'in HU' if few is in_hu else 'not in HU'} are {shown(list(manifest['path'][few]), 3)}. Use CT files, or "
        f"images without a unit, but not both. NIfTI and npy files do not state their unit: {AIR_AT_MOST:g} or less in "
        f"one is taken for air. {_MEND}."
    )


def unit_rows(manifest: pd.DataFrame) -> list[Row]:
    """Audit rows on what was guessed, on grey levels of two depths, on CT without air among CT with air, and on volumes
    without left and right."""
    return [*_guessed(manifest), *_two_depths(manifest), *_without_air(manifest), *_without_sides(manifest)]


def _guessed(manifest: pd.DataFrame) -> list[Row]:
    names = manifest["path"].str.lower()
    guessed = manifest[UNIT_FROM] == GUESSED
    plain = (manifest["values"] == "uint8") & ~names.str.endswith(_VOLUMES)  # grey levels, as most files hold
    pictures = names.str.endswith(_PICTURES)
    hu = guessed & (manifest["values"] == "HU")
    other = guessed & (manifest["values"] != "HU") & ~plain & ~pictures
    lowest = pd.to_numeric(manifest["minimum"])
    rows: list[Row] = []
    windowed = pictures & (manifest["modality"] == "CT")
    if windowed.any():
        severity = INFO if (manifest["values"][windowed] == "uint8").all() else WARNING
        detail = (
            f"{int(windowed.sum())} PNG or JPEG images of CT hold grey levels and not HU: a window was chosen when "
            f"they were made ({shown(list(manifest['path'][windowed]), 3)})."
        )
        rows.append(("CT in grey levels", severity, int(windowed.sum()), detail))
    if hu.any():
        severity = INFO if (lowest[hu] <= -500).all() else WARNING
        detail = (
            f"{int(hu.sum())} images do not state a unit; they reach {AIR_AT_MOST:g} or less, so they are taken for "
        )
        rows.append(("unit guessed: HU", severity, int(hu.sum()), f"{detail}CT in HU. {_MEND}."))
    if other.any():
        detail = (
            f"{int(other.sum())} images do not state a unit and do not look like HU with air in them, so their "
            f"numbers are taken without a unit ({shown(list(manifest['path'][other]), 3)}). {_MEND}."
        )
        rows.append(("unit guessed: none", WARNING, int(other.sum()), detail))
    return rows


def _two_depths(manifest: pd.DataFrame) -> list[Row]:
    eight, deeper = manifest["values"] == "uint8", manifest["values"] == "other"
    if not eight.any() or not deeper.any():
        return []
    few, word = (eight, "0 to 255") if eight.sum() <= deeper.sum() else (deeper, "more than 0 to 255")
    detail = (
        f"{int(few.sum())} of {int((eight | deeper).sum())} images hold grey levels of {word} and the others do not: "
        f"were they exported in another way? A classifier may read that. {shown(list(manifest['path'][few]), 3)}."
    )
    return [("grey levels of two depths", WARNING, int(few.sum()), detail)]


def _without_air(manifest: pd.DataFrame) -> list[Row]:
    in_hu = manifest[manifest["values"] == "HU"]
    airless = in_hu[pd.to_numeric(in_hu["minimum"]) > AIR_AT_MOST]
    if airless.empty:
        return []
    detail = (
        f"{len(airless)} of {len(in_hu)} CT images hold nothing at or below {AIR_AT_MOST:g} HU (no air, no padding)"
    )
    if len(airless) == len(in_hu):
        severity = WARNING if (airless[UNIT_FROM] == STATED).any() else INFO  # whole slices hold air
        return [("CT without air", severity, len(airless), f"{detail}: crops inside the body, or not in HU.")]
    if 2 * len(airless) > len(in_hu):
        return [("CT without air", INFO, len(airless), f"{detail}: crops inside the body.")]
    detail += f", while the others do: crops, or a window or another unit? {shown(list(airless['path']), 3)}."
    return [("CT without air", WARNING, len(airless), detail)]


def _without_sides(manifest: pd.DataFrame) -> list[Row]:
    sideless = manifest["path"][manifest[SIDES_KNOWN] == "false"]
    if sideless.empty:
        return []
    detail = (
        f"{len(sideless)} NIfTI volumes do not say how they lie in the patient (sform and qform codes are 0), so left "
        f"and right may be exchanged: {shown(list(sideless), 3)}. Convert them again from DICOM."
    )
    return [("volumes without left and right", WARNING, len(sideless), detail)]
