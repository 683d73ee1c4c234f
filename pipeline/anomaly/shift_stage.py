"""Stage `shift`: compare how a fold's test images were acquired with the normal images of its validation patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.anomaly.cohort import Cohort, cohort_of
from pipeline.anomaly.detector import ImageSet
from pipeline.anomaly.shift import Acquired, Shift, acquired, save_reference, shift_between
from pipeline.config.anomaly import normal_classes
from pipeline.config.section import Section
from pipeline.core.metrics import MetricRow, as_text, write_metrics
from pipeline.core.patients import patient_units
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed
from pipeline.data.cohort.normals import normal_rows

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

METRIC = "shift_p"
EVERYBODY, NORMALS = "all patients", "normal patients"


class ShiftConfig(Section):
    """What the comparison depends on; `normal`: the classes that are normal."""

    normal: tuple[str, ...]
    fold: int
    seed: int


@dataclass(frozen=True)
class _Compared:
    """The images of a split beside the validation normals: of all its patients, and of the normal ones if any."""

    split: str
    everybody: Shift
    normals: Shift | None


def shift_config(experiment: Experiment, fold: int) -> ShiftConfig:
    """The stage's section of `experiment`.

    Raises:
        ConfigError: a class that is said to be normal is none of the classes, or all are.
    """
    data = experiment.data
    return ShiftConfig(
        normal=normal_classes(experiment.anomaly, data.classes, data.positive),
        fold=fold,
        seed=derive_seed(experiment.seed, "shift", fold),
    )


def run(config: ShiftConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Write the validation normals' statistics, and metrics.csv with a p-value for each comparison.

    All test images are compared first, since in use nobody knows who is ill; then those of normal patients alone, which
    says whether the first alarm is one of disease. Images of an external site are compared likewise.

    Raises:
        LeakageError: a patient, or an image pixel for pixel, is on more than one side of the fold.
    """
    cohort = cohort_of(inputs["prepare"], inputs["split"], config.fold, config.normal)
    reference = _acquired(cohort.normals.val)
    save_reference(out_dir, reference)
    found = _comparisons(config, cohort, reference) if len(reference.patients) else []
    write_metrics(out_dir, [row for one in found for row in _rows(config, one, reference)])
    alarms = {one.split: one.everybody.alarm for one in found}
    notes = tuple(note for one in found for note in _notes(one, reference))
    return Record(kind="shift", figures={"val_normals": len(reference.patients), "alarms": alarms}, notes=notes)


def _acquired(images: ImageSet) -> Acquired:
    units = patient_units(images.dataset.manifest).to_numpy(dtype=str)[images.rows]
    return acquired(images.blocks(), units)


def _comparisons(config: ShiftConfig, cohort: Cohort, reference: Acquired) -> list[_Compared]:
    found = []
    for split, images in cohort.tried.items():
        if split == "val":
            continue
        new = _acquired(images)
        normal = normal_rows(images.dataset, config.normal)[images.rows]
        healthy = Acquired(new.statistics[normal], new.patients[normal])
        among = shift_between(reference, healthy, config.seed) if normal.any() else None
        found.append(_Compared(split, shift_between(reference, new, config.seed), among))
    return found


def _rows(config: ShiftConfig, one: _Compared, reference: Acquired) -> list[MetricRow]:
    count = len(np.unique(reference.patients))
    return [
        MetricRow(
            stage="anomaly", fold=str(config.fold), split=one.split, subgroup=who, metric=METRIC,
            value=as_text(shift.p), n_patients=str(shift.num_patients),
            detail=f"against {count} validation normals; moved: {shift.what_moved}",
        )
        for who, shift in ((EVERYBODY, one.everybody), (NORMALS, one.normals))
        if shift is not None
    ]  # fmt: skip


def _notes(one: _Compared, reference: Acquired) -> list[str]:
    """What a reader of the scores must know, in a sentence; nothing where all is well."""
    whole, normals = one.everybody, one.normals
    if whole.too_few:
        count = len(np.unique(reference.patients))
        return [
            f"Shift: {whole.num_patients} {one.split} patients beside {count} validation normals are too few to tell "
            "another way of acquisition."
        ]
    if normals is not None and normals.alarm:
        return [
            f"Shift: {one.split} images of normal patients look otherwise acquired than those of validation patients "
            f"({normals.what_moved}; p = {normals.p:.2g}): a high score may mean the scanner, not disease."
        ]
    if not whole.alarm:
        return []
    told = f"{one.split} images differ from validation normals in how they look acquired ({whole.what_moved}; p = "
    if normals is None:
        return [f"Shift: {told}{whole.p:.2g}): by their scanner, or because no patient among them is normal."]
    return [
        f"Shift: {told}{whole.p:.2g}), but normal patients among them are not told apart (p = {normals.p:.2g}): "
        "rather disease than the scanner."
    ]
