"""Which side of each fold every labelled image is on: drawn by patient, or given by a column of the source."""

from __future__ import annotations

import pandas as pd

from pipeline.core.errors import DataError, LeakageError
from pipeline.core.patients import patient_units
from pipeline.data.cohort.assignment import assign_patients
from pipeline.data.cohort.cells import cells_named
from pipeline.data.cohort.known import Known
from pipeline.data.cohort.leakage import first_straddling, straddling
from pipeline.data.cohort.low_data import Assignment, LowData
from pipeline.data.cohort.manifest import shown

SPLIT_NAMES = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "te"),
}


def sides_of_folds(config: LowData, kept: pd.DataFrame, known: Known) -> list[Assignment]:
    """The side (train, val, test) of every labelled image, fold by fold; patients in `known` keep theirs.

    Raises:
        DataError: the source's own split is asked for, and is not there or cannot be read.
        LeakageError: it has a patient on two sides, or on another one than the register has.
    """
    labelled = _by_cell(config, kept[kept["label"] != ""])
    split, seed = config.split, config.seed
    if split.kind == "column":
        return [_from_column(config, kept, known)]
    if split.kind == "holdout":
        shares = {"train": 1 - split.val - split.test, "val": split.val, "test": split.test}
        return [assign_patients(labelled, shares, seed, "holdout", known=known.in_fold(0))]
    equal = {str(fold): 1 / split.folds for fold in range(split.folds)}
    tested = assign_patients(labelled, equal, seed, "folds", known=known.tested())
    folds = []
    for number in range(split.folds):
        rest = labelled[labelled["image_id"].map(tested) != str(number)]
        val = split.val / (1 - 1 / split.folds)
        cut = assign_patients(rest, {"train": 1 - val, "val": val}, seed, "val", number, known=known.in_fold(number))
        folds.append({image: cut.get(image, "test") for image in labelled["image_id"]})
    return folds


def _by_cell(config: LowData, labelled: pd.DataFrame) -> pd.DataFrame:
    """With sites every side gets its share of every cell of site and class, not of every class alone."""
    return labelled.assign(label=cells_named(labelled, config.site)) if config.site else labelled


def _from_column(config: LowData, kept: pd.DataFrame, known: Known) -> Assignment:
    """The source's own split; val is cut from train where there is none, and then a register's val is the source's
    train."""
    if "split" not in kept:
        raise DataError(
            "data.split.kind: column, but the source has no column split. Name yours in data.source.columns.split, or "
            "use holdout or kfold."
        )
    names = {alias: name for name, aliases in SPLIT_NAMES.items() for alias in aliases}
    labelled = kept[kept["label"] != ""]
    given = labelled["split"].str.lower()
    if not given.isin(set(names)).all():
        wrong = labelled["path"][~given.isin(set(names))]
        raise DataError(
            f"the split column holds nothing, or something else than train, val or test, in {len(wrong)} rows: "
            f"{shown(list(wrong))}. Mend these rows."
        )
    found = given.map(names)
    if "test" not in set(found) or "train" not in set(found):
        raise DataError(
            f"the split column names only {', '.join(sorted(set(found)))}: train and test are needed. "
            "Use data.split.kind: holdout to have patients drawn."
        )
    assignment = dict(zip(labelled["image_id"], found, strict=True))
    _refuse_patients(labelled, assignment)
    sides = known.in_fold(0)
    cut = "val" not in set(found)
    _refuse_moved(
        labelled, assignment, {unit: "train" if cut and side == "val" else side for unit, side in sides.items()}
    )
    if cut:
        train = _by_cell(config, labelled[found == "train"])
        val = min(config.split.val * len(labelled) / len(train), 0.5)
        assignment |= assign_patients(train, {"train": 1 - val, "val": val}, config.seed, "val", 0, known=sides)
    return assignment


def _refuse_moved(labelled: pd.DataFrame, assignment: Assignment, sides: dict[str, str]) -> None:
    before = patient_units(labelled).map(sides)
    moved = before.notna() & (before != labelled["image_id"].map(assignment))
    if moved.any():
        raise LeakageError(
            f"the split column puts {patient_units(labelled)[moved].nunique()} patient(s) on another side than the "
            f"register (data.patient_register) has, the first: {labelled['path'][moved].iloc[0]} (before: "
            f"{before[moved].iloc[0]}). Mend the column: who was tested once is never learnt from."
        )


def _refuse_patients(labelled: pd.DataFrame, assignment: Assignment) -> None:
    units, sides = patient_units(labelled), labelled["image_id"].map(assignment)
    crossing = straddling(units, sides)
    if crossing:
        raise LeakageError(
            f"the split column puts {crossing} patient(s) into more than one of train, val and test, the first: "
            f"{first_straddling(labelled['path'], units, sides)}. Mend the column, or use data.split.kind: holdout, "
            "which keeps patients together."
        )
