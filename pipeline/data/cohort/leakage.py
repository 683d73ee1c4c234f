"""The check that nothing of a test patient reaches training. Later stages call it again on what they are given."""

from __future__ import annotations

import pandas as pd

from pipeline.core.errors import LeakageError
from pipeline.core.patients import known_patients, patient_units
from pipeline.data.cohort.identities import spelling

PRIORITY = ("train", "val", "test")
SIDES = (*PRIORITY, "external")


def assert_no_leakage(splits: pd.DataFrame, manifest: pd.DataFrame) -> None:
    """Every patient, and every image pixel for pixel, is on one side of each fold.

    Unlabelled images count as training; `unused` ones are on no side. Images without a patient id are patients of their
    own.

    Args:
        splits: fold, image_id, split.
        manifest: image_id, patient_id, pixel_digest.

    Raises:
        LeakageError: with the number of patients and images that are not.
    """
    facts = manifest.set_index("image_id")[["patient_id", "pixel_digest"]]
    for fold, part in splits.groupby("fold"):
        joined = part.join(facts, on="image_id")
        if joined["pixel_digest"].isna().any():
            raise LeakageError(f"fold {fold} names images that the manifest does not have. Make the split again.")
        patients = straddling(patient_units(joined), joined["split"])
        copies = straddling(joined["pixel_digest"], joined["split"])
        if patients or copies:
            raise LeakageError(
                f"fold {fold}: {patients} patient(s) and {copies} identical image(s) are in more than one of train, "
                "val, test and external. Make the split again with radaug, which keeps patients together; "
                "data.duplicates: drop leaves copies out."
            )


def straddling(keys: pd.Series, splits: pd.Series) -> int:
    """How many non-empty `keys` are in more than one of train (with unlabelled), val, test and external."""
    sides = splits.replace("unlabelled", "train")
    counted = sides.isin(SIDES) & (keys != "")
    return int((sides[counted].groupby(keys[counted]).nunique() > 1).sum())


def first_straddling(paths: pd.Series, keys: pd.Series, splits: pd.Series) -> str:
    """`FILE (train) and FILE (test)`: two files of the first key that `straddling` counts."""
    sides = splits.replace("unlabelled", "train")
    counted = sides.isin(SIDES) & (keys != "")
    groups = sides[counted].groupby(keys[counted], sort=False)
    group = next((group for _, group in groups if group.nunique() > 1), None)
    if group is None:
        return "none"
    pair = group.drop_duplicates().iloc[:2]
    return " and ".join(f"{path} ({side})" for path, side in zip(paths.loc[pair.index], pair, strict=True))


def refuse_shared(manifest: pd.DataFrame, external: pd.DataFrame) -> None:
    """Refuse an external site that shares a patient, in whatever spelling, or an image with the data that train.

    Raises:
        LeakageError: with the number of patients and images that are shared.
    """
    known = set(known_patients(manifest).map(spelling)) - {""}
    theirs = known_patients(external).map(spelling)
    patients = len(known & set(theirs))
    same = external["pixel_digest"].isin(set(manifest["pixel_digest"]))
    copies = int(same.sum())
    if patients or copies:
        first = external.get("path", external["image_id"])[same | theirs.isin(known)].iloc[0]
        raise LeakageError(
            f"data.external: {patients} patient id(s) and {copies} image(s), pixel for pixel, are in data.source too. "
            f"The site's first such image: {first}. "
            "Take them out of one of the two; if only the numbering is the same, give the external patients ids of "
            "their own, such as siteB-1."
        )
