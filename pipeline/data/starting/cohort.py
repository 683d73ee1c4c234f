"""One table of the images: who tells the class, the patient and the split of each, with the reason for every choice."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pipeline.core.errors import DataError, UserError
from pipeline.core.patients import patient_units
from pipeline.data.cohort.tables import read_user_table
from pipeline.data.starting.files import SPREADSHEETS, Around, Item
from pipeline.data.starting.folders import by_folders, by_names, find_levels, without_numbers
from pipeline.data.starting.patients import patient_pattern
from pipeline.data.starting.tables import HOW, PART, PATIENT, Columns, Match, match_images, read_columns
from pipeline.data.starting.words import MOST_CLASSES, SPLIT_OF, is_without

FEWEST_PATIENTS = 4
"""Of a class: with fewer, train, val and test cannot each have one and a second one."""
FINDING = "finding"


@dataclass(frozen=True)
class Given:
    """A table that names images, and how."""

    path: Path
    table: pd.DataFrame
    match: Match
    columns: Columns


@dataclass
class Cohort:
    """The images so far: path, label, patient_id, split and perhaps site, mask, series_id; all text, paths absolute.

    Attributes:
        why: for `classes`, `patients` and `split` the reason, in a sentence.
        doubts: what is uncertain or left out, a sentence each.
        pattern: the expression that finds patients in file names, if one does.
        plain: nothing was left out or put together, so folders or table say it all by themselves.
    """

    images: pd.DataFrame
    why: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    pattern: str = ""
    label_level: int | None = None
    given: Given | None = None
    plain: bool = True


def gather(around: Around, items: tuple[Item, ...], table: Path | None) -> Cohort:
    """The images with class, patient and split.

    Args:
        table: the one that the user names; else the one that fits most images, if any does.

    Raises:
        UserError: nothing tells the class, there is one class only, or one patient only.
    """
    paths = [item.path for item in items]
    levels = find_levels(around.folder, paths)
    cohort = Cohort(by_folders(around.folder, paths, levels), given=_given(around, items, table))
    if levels.site is not None:
        cohort.plain = False
    _classes(cohort, around, levels.others, levels.label)
    _patients(cohort, items, levels.patient is not None)
    _split(cohort, levels.split is not None)
    images = cohort.images
    unlabelled = images["label"] == ""
    if unlabelled.any():
        cohort.plain = False
        cohort.doubts.append(f"{int(unlabelled.sum())} images without a class are left out.")
        cohort.images = images[~unlabelled]
    _without_rare_classes(cohort)
    _require_two(cohort, around)
    return cohort


def _given(around: Around, items: tuple[Item, ...], named: Path | None) -> Given | None:
    best: Given | None = None
    for path in [named] if named else around.tables:
        try:
            table = read_user_table(path)
        except DataError:
            if named:
                raise
            continue
        match = match_images(table, path.parent, items)
        if match and (best is None or len(match.rows) > len(best.match.rows)):
            best = Given(path, table, match, read_columns(table, match.column))
    if named and best is None:
        raise UserError(
            f"{named}: no column names any of the {len(items)} images in {around.folder}. Put the table beside the "
            "images' folder, and the files' paths, as seen from the table, into a column path."
        )
    return best if best and (named or 2 * len(best.match.rows) >= len(items)) else None


def _classes(cohort: Cohort, around: Around, others: tuple[str, ...], level: int | None) -> None:
    given, images = cohort.given, cohort.images
    by_table = given is not None and given.columns.label and (given.columns.sure or level is None)
    if given is not None and (by_table or given.columns.patient or given.columns.split):
        _take_from_table(cohort, given, bool(by_table))
    else:
        cohort.given = None
    if by_table and given is not None:
        columns = given.columns
        cohort.why["classes"] = f"column {columns.label} of {given.path.name}"
        if not columns.sure:
            cohort.doubts.append(f"Column {columns.label} is taken for the class: no column is called label or class.")
        if columns.others:
            cohort.doubts.append(f"The class could also stand in column {', '.join(columns.others)}.")
        return
    if level is None:
        words = by_names([Path(path) for path in images["path"]])
        if words is None:
            raise UserError(_nothing_says_the_class(around, given))
        cohort.images = cohort.images.assign(label=list(words))
        cohort.plain = False
        cohort.why["classes"] = "words that the files' names begin with"
        cohort.doubts.append(f"The class is read from the file's name: {', '.join(sorted(set(words) - {''}))}.")
        return
    cohort.label_level = level
    cohort.why["classes"] = "names of the folders"
    bare = without_numbers(cohort.images["label"])
    if not bare.equals(cohort.images["label"]):
        cohort.images = cohort.images.assign(label=bare)
        cohort.plain = False
        cohort.doubts.append("The folders' names are taken without their numbers.")
    if others:
        cohort.doubts.append(f"The folders {'; '.join(others)} could be the classes, too.")
    if images["split"].ne("").any():
        cohort.plain = False


def _nothing_says_the_class(around: Around, given: Given | None) -> str:
    count = f"{around.folder}: holds {len(around.items)} images, but nothing says which class each is of. "
    if given is not None:
        columns = ", ".join(map(str, given.table.columns))
        could = f" It could be {' or '.join(given.columns.others)}." if given.columns.others else ""
        return f"{count}{given.path.name} has the columns {columns}.{could} Name each image's class in a column label."
    sheet = next((path for path in around.others if path.suffix.lower() in SPREADSHEETS), None)
    if sheet is not None:
        return f"{count}If {sheet.relative_to(around.folder)} says it, save its sheet as 'CSV UTF-8' beside the images."
    return (
        f"{count}Put the images of each class into a folder of its name, or put a table beside them with the columns "
        "path, label and patient_id, and give that."
    )


def _take_from_table(cohort: Cohort, given: Given, with_label: bool) -> None:
    """Label, patient and split from the table's rows; images that no row names go, where it tells the class."""
    pairs = sorted(given.match.rows, key=lambda pair: pair[1])
    rows, numbers = [row for row, _ in pairs], [number for _, number in pairs]
    said = given.table.iloc[rows].reset_index(drop=True)
    images, columns = cohort.images, given.columns
    left = len(images) - len(numbers)
    if with_label:
        images = images.iloc[numbers].reset_index(drop=True).assign(label=said[columns.label])
        if left:
            cohort.doubts.append(f"{left} images that no row of {given.path.name} names are left out.")
    else:
        said = said.set_axis(numbers).reindex(range(len(images)), fill_value="")
        cohort.plain = False
    images = images.assign(number=numbers if with_label else range(len(images)))
    patient = columns.patient or (given.match.column if given.match.how in (PATIENT, PART) else "")
    if patient:
        images = images.assign(patient_id=list(said[patient]))
        cohort.why["patients"] = f"column {patient} of {given.path.name}"
    if columns.split:
        images = images.assign(split=[SPLIT_OF.get(one.lower(), "") for one in said[columns.split]])
    others = [name for name in said if name not in (given.match.column, columns.label, patient, columns.split)]
    extra = said[others].rename(columns=lambda name: f"source_{name}" if name in images else name)
    cohort.images = pd.concat([images, extra.set_axis(images.index)], axis=1)
    idle = len(given.table) - len(set(rows))
    if idle:
        cohort.doubts.append(f"{idle} of {len(given.table)} rows of {given.path.name} name no image that is there.")
        cohort.plain = cohort.plain and idle <= 0.05 * len(given.table)
    if with_label:
        _one_label_each(cohort, columns)
    if given.match.how != "path":
        cohort.doubts.append(f"Images are found by column {given.match.column}, which {HOW[given.match.how]}.")


def _one_label_each(cohort: Cohort, columns: Columns) -> None:
    """Make two classes of many findings: none against any."""
    labels = cohort.images["label"]
    values = set(labels) - {""}
    if not columns.many and len(values) <= MOST_CLASSES:
        return
    without = sorted(value for value in values if is_without(value))
    if len(without) != 1:
        raise UserError(
            f"Column {columns.label} holds {len(values)} different findings, several at once in some rows, and none "
            "that is called like the healthy side. Make a column label with one class a row."
        )
    cohort.plain = False
    cohort.images["label"] = labels.where(labels.isin(["", without[0]]), FINDING)
    cohort.doubts.append(
        f"Column {columns.label} holds {len(values)} sets of findings: two classes are made of it, {without[0]} and "
        f"{FINDING} (any). To study one of them, make a column label of your own."
    )


def _patients(cohort: Cohort, items: tuple[Item, ...], by_level: bool) -> None:
    images = cohort.images
    if "patients" in cohort.why:
        return
    numbers = images["number"] if "number" in images else range(len(images))
    headers = [items[number].patient for number in numbers]
    if all(headers):
        cohort.images["patient_id"] = headers
        cohort.why["patients"] = "PatientID in the DICOM headers"
        return
    if by_level:
        cohort.plain = False
        cohort.why["patients"] = "names of the folders"
        cohort.doubts.append(_shown_patients(images["patient_id"], "The folders' names are taken for patients"))
        return
    pattern = patient_pattern([Path(path).name for path in images["path"]])
    if pattern is None:
        cohort.why["patients"] = "nothing names them"
        cohort.doubts.append(
            "NO PATIENT IS NAMED by a column, a header or a pattern in file names, so EACH FILE COUNTS AS A PATIENT. "
            "If one patient has several images, they will lie in train and in test, and every figure is too good: "
            "name the patients (source.patient_pattern, or a column patient_id)."
        )
        return
    cohort.images["patient_id"] = list(pattern.patients)
    cohort.pattern = "" if pattern.misses else pattern.text
    cohort.plain = cohort.plain and cohort.given is None and not pattern.misses
    cohort.why["patients"] = "file names"
    cohort.doubts.append(_shown_patients(images["patient_id"], "The patient is read from the file's name"))
    if pattern.misses:
        cohort.doubts.append(
            f"{pattern.misses} FILE NAMES DO NOT FIT it, and each of these files COUNTS AS A PATIENT: name theirs."
        )


def _shown_patients(patients: pd.Series, how: str) -> str:
    known = patients[patients != ""]
    return f"{how}: {known.nunique()} patients for {len(known)} images. Check that this is so."


def _split(cohort: Cohort, by_level: bool) -> None:
    """Whether the source's own split can be used: every class on each side, no patient on two."""
    images = cohort.images
    labelled = images[images["label"] != ""]
    if not labelled["split"].ne("").all():
        return
    told = "the folders" if by_level and not (cohort.given and cohort.given.columns.split) else "a column"
    names = "name" if told == "the folders" else "names"
    units = patient_units(labelled.assign(image_id=labelled["path"]))
    sides = set(labelled["split"])
    torn = int((labelled["split"].groupby(units).nunique() > 1).sum())
    thin = labelled.groupby("split")["label"].nunique().min() < labelled["label"].nunique()
    if torn:
        cohort.doubts.append(
            f"{told.capitalize()} {names} a split, but {torn} patients are on more than one side: IT LEAKS, and is not "
            "used."
        )
    elif not {"train", "test"} <= sides:
        cohort.doubts.append(f"{told.capitalize()} {names} only {' and '.join(sorted(sides))}: that split is not used.")
    elif thin:
        cohort.doubts.append(f"{told.capitalize()} {names} a split in which a side lacks a class: it is not used.")
    else:
        cohort.why["split"] = f"{told} {names} it" + ("" if "val" in sides else "; val is cut from train")
    if "split" not in cohort.why:
        cohort.images["split"] = ""


def _without_rare_classes(cohort: Cohort) -> None:
    images = cohort.images
    units = patient_units(images.assign(image_id=images["path"]))
    counts = units.groupby(images["label"]).nunique()
    rare = sorted(counts[counts < FEWEST_PATIENTS].index)
    if rare and len(counts) - len(rare) >= 2:
        cohort.plain = False
        cohort.images = images[~images["label"].isin(rare)]
        cohort.doubts.append(
            f"Classes of fewer than {FEWEST_PATIENTS} patients cannot be split and are left out: {', '.join(rare)}."
        )


def _require_two(cohort: Cohort, around: Around) -> None:
    labels = sorted(set(cohort.images["label"]))
    if len(labels) < 2:
        raise UserError(
            f"{around.folder}: all images are of one class ({', '.join(labels) or 'none'}), so there is nothing to "
            "tell apart. Add images of another class, in a folder or in rows of their own."
        )
    if len(labels) > MOST_CLASSES:
        raise UserError(
            f"{around.folder}: {len(labels)} classes are too many ({cohort.why['classes']}). Name the class of each "
            "image in a table's column label."
        )
    patients = set(cohort.images["patient_id"])
    if len(patients) == 1 and patients != {""}:
        raise UserError(
            f"{around.folder}: all {len(cohort.images)} images are of one patient ({cohort.why['patients']}). Train, "
            "val and test need different ones. If they are of several, name them in a table's column patient_id."
        )
