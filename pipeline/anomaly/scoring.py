"""`radaug score`: how unlike normal patients new images look, by a detector that a run fitted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.anomaly.detector import ImageSet
from pipeline.anomaly.fitted import Fitted, FittedEnsemble, fitted_as_named, only_stage, shift_stage
from pipeline.anomaly.overlays import Case, anomaly_map, draw_cases
from pipeline.anomaly.shift import Shift, acquired, read_reference, shift_between
from pipeline.config.loading import load_experiment
from pipeline.core.errors import DataError, UserError
from pipeline.core.files import atomic_path
from pipeline.core.layout import CONFIG, MANIFEST
from pipeline.core.patients import known_patients, patient_units
from pipeline.core.progress import Progress
from pipeline.data.batches.dataset import read_table, write_table
from pipeline.data.new_images import NewImages, prepare_new
from pipeline.measures.conformal import conformal_p_values

SCORES, REFUSED, MAPS = "scores.csv", "refused.csv", "maps"


@dataclass(frozen=True)
class Scored:
    """What came of it, for the last line on the screen."""

    detector: str
    images: int
    alarms: int
    refused: int
    calibration_patients: int
    rate: float
    shift: Shift

    @property
    def sentences(self) -> tuple[str, ...]:
        found = [f"{self.images} images scored by {self.detector}; alarms at a rate of {self.rate:g}: {self.alarms}."]
        if self.refused:
            were = "image was" if self.refused == 1 else "images were"
            found.append(f"{self.refused} {were} refused: {REFUSED} says why.")
        if 1 / (self.calibration_patients + 1) > self.rate + 1e-12:
            found.append(
                f"No alarm can be raised at this rate: {self.calibration_patients} normal validation patients give "
                f"p-values of {1 / (self.calibration_patients + 1):.2g} and more."
            )
        return (*found, self.shift.sentence)


def score_run(
    run_dir: Path, given: Path, out_dir: Path, detector: str = "", *, maps: bool = False, rate: float | None = None
) -> Scored:
    """Write SCORES (path, score, p_value, alarm, detector, shift) and REFUSED (path, reason) into `out_dir`.

    Every image is prepared by the functions and settings of the run; one that cannot be read, or differs from the run's
    in modality, dimensions or unit, is refused by name. A p-value says how many normal validation patients in all look
    so unlike the others (`pipeline.measures.conformal`); the alarm is raised where it is at most the rate.
    `shift` is 1 in every row where the images together look otherwise acquired than the validation normals, and empty
    where they are too few to tell; images whose headers name no patient count as one patient each.

    Args:
        given: a DICOM, NIfTI, PNG, JPEG or npy file, a folder of these or of DICOM series, or a table with `path`.
        detector: a detector or an ensemble, as the configuration names it; empty = the first detector.
        maps: also write MAPS/ID.png, the image beside itself under its map, and of DICOM and NIfTI MAPS/ID.nii.gz, the
            map on the source's own voxels.
        rate: share of normal patients for whom an alarm may be raised; None = the run's `anomaly.false_alarms`.

    Raises:
        UserError: the run has not this detector, or the detector has no maps; or the rate is not between 0 and 1.
        DataError: `given` holds no image, or every one was refused.
    """
    experiment = load_experiment(run_dir / CONFIG)
    rate = experiment.anomaly.false_alarms if rate is None else rate
    if not 0 < rate < 1:
        raise UserError(f"--rate must lie between 0 and 1, such as 0.05; it is {rate:g}.")
    if given.is_dir() and out_dir.resolve().is_relative_to(given.resolve()):
        raise UserError(f"--out {out_dir}: lies in {given}, so that maps would be scored next time. Choose another.")
    (out_dir / SCORES).unlink(missing_ok=True)
    fitted = fitted_as_named(run_dir, experiment, detector)
    if maps and fitted.map_scale is None:
        raise UserError(f"--maps: {fitted.name} does not say where. `radaug detectors` prints which do.")
    trained_on = read_table(only_stage(run_dir, "prepare")[1] / MANIFEST)
    trained_on = trained_on[trained_on["split"] != "external"] if "split" in trained_on else trained_on
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".prepared-") as folder:
        images = prepare_new(experiment, fitted.scaling, trained_on, given, Path(folder))
        write_table(out_dir / REFUSED, images.refused)
        if not len(images.dataset.manifest):
            first = "; ".join(f"{row.path}: {row.reason}" for row in images.refused.head(1).itertuples())
            raise DataError(f"all {len(images.refused)} images were refused; {REFUSED} says why. The first, {first}.")
        shift = _shift(shift_stage(run_dir, experiment), images)
        flag = "" if shift.too_few else str(int(shift.alarm))
        table = _scores(fitted, images, rate).assign(shift=flag)
        write_table(out_dir / SCORES, table)
        if maps and isinstance(fitted, Fitted):
            _write_maps(fitted, images, table, out_dir / MAPS)
    patients = len(set(fitted.calibration[1]))
    return Scored(fitted.name, len(table), int(table["alarm"].sum()), len(images.refused), patients, rate, shift)


def _scores(fitted: Fitted | FittedEnsemble, images: NewImages, rate: float) -> pd.DataFrame:
    found = fitted.scores(_all(images))
    p_values = conformal_p_values(found, *fitted.calibration)
    return pd.DataFrame(
        {
            "path": images.dataset.manifest["shown"],
            "score": [f"{score:.6g}" for score in found],
            "p_value": [f"{p_value:.6g}" for p_value in p_values],
            "alarm": (p_values <= rate + 1e-12).astype(int),
            "detector": fitted.name,
        }
    )


def _shift(reference: Path, images: NewImages) -> Shift:
    table = images.dataset.manifest.assign(patient_id=images.dataset.manifest["header_patient"])
    new = acquired(_all(images).blocks(), patient_units(table).to_numpy(dtype=str))
    return shift_between(read_reference(reference), new, singly=bool((known_patients(table) == "").any()))


def _all(images: NewImages) -> ImageSet:
    return ImageSet(images.dataset, np.arange(len(images.dataset.manifest)))


def _write_maps(fitted: Fitted, images: NewImages, table: pd.DataFrame, folder: Path) -> None:
    scale, progress = fitted.map_scale, Progress("maps", len(table), "images")
    assert scale is not None, "asked of a detector with maps alone"
    ids, shown = images.dataset.manifest["image_id"], _all(images)
    for number, (name, p_value) in enumerate(zip(ids, table["p_value"], strict=True)):
        found = anomaly_map(fitted.detector, shown, number)
        assert found is not None, "a detector with a scale has maps"
        image = images.dataset.tensor(np.array([number]))[0, 0].numpy()
        case = Case(f"{table['path'].iloc[number]} · p = {float(p_value):.2g}", image, found)
        with atomic_path(folder / f"{name}.png") as temporary:
            temporary.write_bytes(draw_cases([case], scale, 1))
        if images.placed(number):
            images.write_on_source(folder / f"{name}.nii.gz", found, number)
        progress.update(number + 1)
