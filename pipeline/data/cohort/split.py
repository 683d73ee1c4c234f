"""Split: every patient on one side of every fold. What cannot be kept apart stops the run before training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.core.layout import AUDIT, MANIFEST, REGISTER, REJECTED, SPLITS_FILE
from pipeline.core.patients import known_patients, patient_units
from pipeline.core.records import Record
from pipeline.data.batches.dataset import read_table, write_table
from pipeline.data.cohort.audit_rows import INFO, WARNING, Row, audit_table
from pipeline.data.cohort.cells import require_one_site_a_patient, require_sites
from pipeline.data.cohort.duplicates import repeats
from pipeline.data.cohort.known import NOBODY, Known, after_split, known_of, register_rows
from pipeline.data.cohort.leakage import (
    PRIORITY,
    SIDES,
    assert_no_leakage,
    first_straddling,
    refuse_shared,
    straddling,
)
from pipeline.data.cohort.low_data import Assignment, LowData, low_data
from pipeline.data.cohort.manifest import EXTERNAL, REJECTED_COLUMNS
from pipeline.data.cohort.register import read_register
from pipeline.data.cohort.sides import SPLIT_NAMES, sides_of_folds

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

FEW_TEST_PATIENTS = 10


class SplitStage(LowData):
    """What decides the split. `seed` is the experiment's."""

    classes: tuple[str, ...]
    duplicates: Literal["refuse", "drop"]
    register_path: str
    max_withdrawn: float
    site_names: tuple[str, ...] = ()
    judged_by_patient: bool = False

    @property
    def study(self) -> dict[str, Any]:
        """What a register of patients belongs to."""
        folds = self.split.folds if self.split.kind == "kfold" else 1
        return {"split": self.split.kind, "folds": folds, "classes": sorted(self.classes)}


def split_config(experiment: Experiment) -> SplitStage:
    """The split section of `experiment`."""
    data, split = experiment.data, experiment.data.split
    if split.kind == "kfold" and split.val + 1 / split.folds >= 1:
        raise ConfigError(
            f"data.split: with {split.folds} folds, val {split.val} leaves nothing to train on. Use more folds."
        )
    return SplitStage(
        split=split,
        classes=data.classes,
        per_class=data.per_class,
        surplus=data.surplus,
        duplicates=data.duplicates,
        site=data.site_column,
        site_names=data.site_names,
        judged_by_patient=experiment.verdict.unit == "patient",
        cells=None if data.correlation is None else {name: dict(row) for name, row in data.correlation.items()},
        unlabelled=data.unlabelled_sites,
        register_path=data.patient_register or "",
        max_withdrawn=data.max_withdrawn,
        seed=experiment.seed,
    )


def run(config: SplitStage, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Write manifest.csv (with split, fold and fate, rejected images included), splits.csv and audit.csv.

    With `data.patient_register` patients who are in it keep their sides, and register.json is the next one.

    Splits of a fold are train, val, test, unlabelled (of training patients, and of an unlabelled site's validation
    patients), unused and, in every fold, the external site's images: external. A labelled image may be in `unlabelled`
    (data.surplus, or its site is): the manifest keeps its label, which nothing that trains in that fold may read
    (`open_fold` hides it). In the manifest, `split` is fold 0's for a holdout or column split; with k folds it is
    `test`, and `fold` says in which fold.

    Raises:
        LeakageError: a patient, or an exact copy of an image with `duplicates: refuse`, is in two splits of a fold, or
            in the source and the external site.
        RefusedError: the register was tampered with, or is another study's.
        DataError: a class is missing from a split, has fewer images than `train_per_class`, or not for all draws; or
            an image has no site, or none of those that are named; or a patient whom the verdict counts has several.
    """
    source = inputs["ingest"]
    manifest = read_table(source / MANIFEST)
    site = read_table(source / EXTERNAL) if (source / EXTERNAL).is_file() else manifest.iloc[:0]
    refuse_shared(manifest, site)
    if config.site:
        labelled = manifest[manifest["label"] != ""]
        require_sites(labelled, config.site, config.site_names)
        if config.judged_by_patient:
            require_one_site_a_patient(labelled, config.site)
    rejected, known = read_table(source / REJECTED), NOBODY
    if config.register_path:
        register = read_register(Path(config.register_path))
        known = known_of(register, manifest, rejected, config.study, config.max_withdrawn)
    kept, dropped = _without_copies(config, manifest, known)
    outside, copies = _without_copies(config, site, NOBODY)
    sides = sides_of_folds(config, kept, known)
    folds = [_with_unlabelled(kept, fold, known.held(number)) for number, fold in enumerate(sides)]
    _refuse_copies(kept, folds)
    folds = [one for number, fold in enumerate(folds) for one in low_data(config, kept, fold, number, known.rounds)]
    _require_classes(config, kept, folds)
    folds = [fold | dict.fromkeys(outside["image_id"], "external") for fold in folds]
    rows = _unused_split(config, manifest)
    if config.register_path:
        register = after_split(register, manifest, rejected, config.study, sides)
        register.write(out_dir / REGISTER)
        rows += register_rows(register)
    kept, manifest = (pd.concat([a, b], ignore_index=True).fillna("") for a, b in ((kept, outside), (manifest, site)))
    dropped |= copies
    splits = pd.DataFrame(
        [(str(number), image, fold[image]) for number, fold in enumerate(folds) for image in kept["image_id"]],
        columns=["fold", "image_id", "split"],
        dtype=str,
    )
    assert_no_leakage(splits, manifest)
    write_table(out_dir / SPLITS_FILE, splits)
    write_table(out_dir / MANIFEST, _decided(config, manifest, folds, dropped, rejected))
    rows += _audit(kept, folds, dropped)
    audit = audit_table(rows)
    write_table(out_dir / AUDIT, pd.concat([read_table(source / AUDIT), audit], ignore_index=True))
    counts = {name: sum(split == name for split in folds[0].values()) for name in (*PRIORITY, "unused")}
    if len(outside):
        counts["external"] = len(outside)
    notes = tuple(detail for _, severity, _, detail in rows if severity == "warning")
    return Record("split", figures={"folds": len(folds), "fold_0": counts, "duplicates": len(dropped)}, notes=notes)


def _without_copies(config: SplitStage, manifest: pd.DataFrame, known: Known) -> tuple[pd.DataFrame, set[str]]:
    """The manifest without the exact copies that `duplicates: drop` takes out, and their ids.

    With a split column the copy of the highest of test, val, train stays; else, and among equals, a labelled one, then
    the one that a register saw first, then the first by image_id.
    """
    if config.duplicates == "refuse":
        return manifest, set()
    names = {alias: rank for rank, (_, aliases) in enumerate(reversed(SPLIT_NAMES.items())) for alias in aliases}
    ranks = [0] * len(manifest)
    if config.split.kind == "column" and "split" in manifest:
        ranks = [names.get(split, len(SPLIT_NAMES)) for split in manifest["split"].str.lower()]
    unlabelled, ids = list(manifest["label"] == ""), list(manifest["image_id"])
    came = [(known.rounds or {}).get(image, 0) for image in ids]
    dropped: set[str] = set()
    for group in repeats(manifest["pixel_digest"]):
        first = min(group, key=lambda place: (unlabelled[place], ranks[place], came[place], ids[place]))
        dropped |= {ids[place] for place in group if place != first}
    return manifest[~manifest["image_id"].isin(dropped)].reset_index(drop=True), dropped


def _refuse_copies(kept: pd.DataFrame, folds: list[Assignment]) -> None:
    sides = max((kept["image_id"].map(fold) for fold in folds), key=lambda side: straddling(kept["pixel_digest"], side))
    crossing = straddling(kept["pixel_digest"], sides)
    if crossing:
        raise LeakageError(
            f"{crossing} images occur, pixel for pixel, in more than one of train, val and test, so a test would ask "
            f"for what was learnt by heart. The first: {first_straddling(kept['path'], kept['pixel_digest'], sides)}. "
            "Set data.duplicates: drop to leave training copies out, or mend the data."
        )


def _with_unlabelled(kept: pd.DataFrame, fold: Assignment, known: set[str]) -> Assignment:
    """Add unlabelled images: `unlabelled`, but `unused` where their patient, or a copy of them, is in val or test.

    Args:
        known: units that are in val or test by the register, though no image of theirs may have a label now.
    """
    units = patient_units(kept)
    sides = kept["image_id"].map(fold)
    held = sides.isin(["val", "test"])
    blocked = units.isin(known | set(units[held])) | kept["pixel_digest"].isin(set(kept["pixel_digest"][held]))
    extra = {
        image: "unused" if stop else "unlabelled"
        for image, side, stop in zip(kept["image_id"], sides, blocked, strict=True)
        if not isinstance(side, str)
    }
    return fold | extra


def _require_classes(config: SplitStage, kept: pd.DataFrame, folds: list[Assignment]) -> None:
    for number, fold in enumerate(folds):
        sides = kept["image_id"].map(fold)
        for split in PRIORITY:
            absent = [name for name in config.classes if name not in set(kept["label"][sides == split])]
            if absent:
                raise DataError(
                    f"{split} of fold {number} has no image of {', '.join(absent)}: too few patients "
                    f"({_patients_of(kept, absent)}). Raise data.split."
                    f"{'folds or lower val' if config.split.kind == 'kfold' else 'val or test'}, try another seed, or "
                    "add patients of that class."
                )


def _patients_of(kept: pd.DataFrame, classes: list[str]) -> str:
    """`normal 3, pneumonia 1`: how many patients have images of each class."""
    units = patient_units(kept)
    return ", ".join(f"{name} {units[kept['label'] == name].nunique()}" for name in classes)


def _decided(
    config: SplitStage, manifest: pd.DataFrame, folds: list[Assignment], dropped: set[str], rejected: pd.DataFrame
) -> pd.DataFrame:
    """The manifest with split, fold and fate (used, unused, duplicate, rejected: why), rejected images last."""
    table = manifest.rename(columns={"split": "source_split"})
    many = config.split.kind == "kfold"
    tested = [
        next((n for n, fold in enumerate(folds) if fold.get(image) == "test"), None) for image in table["image_id"]
    ]
    splits = [
        "test" if many and fold is not None else folds[0].get(image, "")
        for image, fold in zip(table["image_id"], tested, strict=True)
    ]
    fates = [_fate(image, folds, dropped) for image in table["image_id"]]
    place = list(table.columns).index("patient_id") + 1
    table.insert(place, "split", splits)
    table.insert(place + 1, "fold", ["" if fold is None else str(fold) for fold in tested])
    table.insert(place + 2, "fate", fates)
    out = rejected[list(REJECTED_COLUMNS)].rename(columns={"reason": "fate"})
    out["fate"] = "rejected: " + out["fate"]
    return pd.concat([table, out], ignore_index=True).fillna("") if len(out) else table


def _fate(image: str, folds: list[Assignment], dropped: set[str]) -> str:
    if image in dropped:
        return "duplicate"
    return "used" if any(fold[image] != "unused" for fold in folds) else "unused"


def _unused_split(config: SplitStage, manifest: pd.DataFrame) -> list[Row]:
    """A warning where the source has a split of its own that the configuration does not ask for."""
    if config.split.kind == "column" or "split" not in manifest:
        return []
    aliases = {alias for names in SPLIT_NAMES.values() for alias in names}
    given = manifest["split"][manifest["split"] != ""].str.lower()
    if given.empty or not given.isin(aliases).all():
        return []
    counts = ", ".join(f"{name} {count}" for name, count in given.value_counts().items())
    detail = (
        f"The source has a split of its own ({counts} images), which is not used, since data.split.kind is "
        f"{config.split.kind}: set it to column to use it."
    )
    return [("split of the source", WARNING, len(given), detail)]


def _audit(kept: pd.DataFrame, folds: list[Assignment], dropped: set[str]) -> list[Row]:
    units = patient_units(kept)
    sides = [kept["image_id"].map(fold) for fold in folds]
    near = max(straddling(kept["near_group"], side) for side in sides)
    patients = min(units[side == "test"].nunique() for side in sides)
    few = patients < FEW_TEST_PATIENTS
    of = "patients" if (known_patients(kept) != "").all() else "patients (or images whose patient is unknown)"
    rows: list[Row] = []
    for number, side in enumerate(sides):
        for split in SIDES if "external" in set(side) else PRIORITY:
            images, tested = int((side == split).sum()), units[side == split].nunique()
            rows.append((f"fold {number} {split}", INFO, images, f"{images} images of {tested} {of}."))
    copies = f"{len(dropped)} exact copies of other images are left out; the manifest's fate column lists them."
    alike = f"{near} sets of images that look almost the same lie in more than one split (near_group in the manifest)."
    enough = f"{patients} {of} are tested in the smallest fold{': too few for an interval' if few else ''}."
    return [
        *rows,
        ("duplicates dropped", WARNING if dropped else INFO, len(dropped), copies),
        ("near duplicates across splits", WARNING if near else INFO, near, alike),
        ("test patients", WARNING if few else INFO, patients, enough),
    ]
