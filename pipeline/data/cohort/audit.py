"""The audit: what a careful reader would ask about a data set before believing a result on it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.core.patients import known_patients, num_known
from pipeline.data.cohort.audit_rows import INFO, WARNING, Row, audit_table
from pipeline.data.cohort.confounders import find_confounders
from pipeline.data.cohort.duplicates import repeats


def audit_manifest(manifest: pd.DataFrame, rejected: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Counts, duplicates, missing ids, odd images and confounders, one row a check; no row names a patient."""
    rows = [
        *_classes(manifest, classes),
        *_patients(manifest),
        _rejected(rejected),
        *_duplicates(manifest),
        *(_odd(manifest, column) for column in ("modality", "body_part")),
        *(_spread(manifest, column) for column in ("size", "spacing")),
        *_confounders(manifest, classes),
    ]
    return audit_table(rows)


def _classes(manifest: pd.DataFrame, classes: Sequence[str]) -> list[Row]:
    rows = []
    for name in classes:
        part = manifest[manifest["label"] == name]
        known = num_known(part)
        of = f" of {known} patients" if known else ""
        rows.append((f"class {name}", INFO, len(part), f"{len(part)} images{of} are labelled {name}."))
    unlabelled = int((manifest["label"] == "").sum())
    return [*rows, ("unlabelled", INFO, unlabelled, f"{unlabelled} images have no label.")]


def _patients(manifest: pd.DataFrame) -> list[Row]:
    patients = known_patients(manifest)
    missing, known = int((patients == "").sum()), patients[patients != ""]
    labels = manifest["label"][(patients != "") & (manifest["label"] != "")].groupby(known).nunique()
    mixed, several = int((labels > 1).sum()), int((known.value_counts() > 1).sum())
    if missing:
        every = "every image counts" if missing == len(manifest) else f"each of these {missing} images counts"
        detail = (
            f"{missing} of {len(manifest)} images have no patient id, so patients could not be kept apart: {every} "
            "as a patient of its own, and results may look better than they are."
        )
    else:
        detail = "Every image has a patient id."
    return [
        ("patient ids missing", WARNING if missing else INFO, missing, detail),
        ("patients with several images", INFO, several, f"{several} patients have more than one image."),
        ("patients in several classes", INFO, mixed, f"{mixed} patients have images of more than one class."),
    ]


def _rejected(rejected: pd.DataFrame) -> Row:
    if rejected.empty:
        return ("rejected", INFO, 0, "All images can be used.")
    first = f"{rejected['path'].iloc[0]}: {rejected['reason'].iloc[0]}"
    detail = f"{len(rejected)} images cannot be used; rejected.csv lists them all. The first is {first}."
    return ("rejected", WARNING, len(rejected), detail)


def _duplicates(manifest: pd.DataFrame) -> list[Row]:
    groups = repeats(manifest["pixel_digest"])
    pairs = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    extra = sum(len(group) - 1 for group in groups)
    contradictory = sum(len(set(manifest["label"].iloc[group]) - {""}) > 1 for group in groups)
    looks = manifest[manifest["near_group"] != ""].groupby("near_group")["pixel_digest"].nunique()
    near = int((looks > 1).sum())
    rows = [
        _counted(
            "exact duplicates", pairs, f"{pairs} pairs of images are identical; {extra} images repeat an earlier one."
        )
    ]
    if "split" in manifest:
        across = sum(manifest["split"].iloc[group].nunique() > 1 for group in groups)
        detail = f"{across} sets of identical images lie in more than one split of the source."
        rows.append(_counted("exact duplicates across the source's splits", across, detail))
    detail = f"{contradictory} sets of identical images carry different labels."
    rows.append(_counted("identical images with different labels", contradictory, detail))
    detail = f"{near} sets of images look almost the same (resaved, rescaled or neighbouring slices?)."
    return [*rows, _counted("near duplicates", near, detail)]


def _counted(check: str, count: int, detail: str) -> Row:
    return (check, WARNING if count else INFO, count, detail)


def _odd(manifest: pd.DataFrame, column: str) -> Row:
    """Images whose `column` differs from that of most; an unknown one is not odd."""
    counts = manifest[column][manifest[column] != ""].str.upper().value_counts()
    odd = int(counts.iloc[1:].sum())
    found = ", ".join(f"{name} ({count})" for name, count in counts.head(6).items()) or "not stated"
    return _counted(f"odd {column}", odd, f"{column}: {found}.")


def _spread(manifest: pd.DataFrame, column: str) -> Row:
    counts = manifest[column].value_counts()
    shown = ", ".join(f"{name} ({count})" for name, count in counts.head(4).items())
    return (f"different {column}s", INFO, len(counts), f"{len(counts)} different {column}s; the commonest: {shown}.")


def _confounders(manifest: pd.DataFrame, classes: Sequence[str]) -> list[Row]:
    rows = []
    chance = 1 / len(classes)
    for found in find_confounders(manifest, classes):
        numbers = f"Cramér's V {found.cramers_v:.2f}, p {found.p_value:.2g}"
        guess = (
            "guessing unseen patients' classes from it alone reaches a balanced accuracy of "
            f"{found.guessed:.2f} (chance {chance:.2f})"
        )
        if found.column == "scanner":
            values = f"{found.values}; " if found.values else ""
            detail = (
                f"Scanner and class are entangled ({values}p {found.p_value:.2g}): a classifier may read "
                "the scanner instead of the disease. Balance the classes over scanners, or read every result so."
            )
        elif found.entangled:
            detail = f"{found.column} and class are entangled: {guess}; {numbers}. {found.values}".strip()
        else:
            detail = f"No clear link between {found.column} and class: {guess}; {numbers}."
        rows.append((f"confounder {found.column}", WARNING if found.entangled else INFO, int(found.entangled), detail))
    return rows
