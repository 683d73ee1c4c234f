"""The report's section on anomaly detectors: histogram, ROC curves, and the worklist of the first detector."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.config.anomaly import normal_classes
from pipeline.config.arms import REFERENCE_ARM
from pipeline.core.layout import ANOMALY_SCORES, WORKLIST, WORKLIST_PICTURE
from pipeline.core.patients import patient_units
from pipeline.report.anomaly_plots import anomaly_plot, detectors_roc_plot
from pipeline.report.names import detector_named
from pipeline.report.picture import Picture
from pipeline.report.reading import Run, StageEntry
from pipeline.report.sheets import stored_png
from pipeline.report.tables import Table
from pipeline.report.words import count, number

SUPERVISED = "Supervised classifier"
_COLUMNS = ("split", "seed", "image_id", "patient_id", "label", "normal", "anomaly_score", "p_value")
_FIT = ["fold", "gan_seed", "seed"]


def first_detector(run: Run) -> StageEntry | None:
    """The stage of the first detector in the configuration, of the fold and GAN named for release."""
    release, first = run.experiment.release, next(iter(run.experiment.anomaly.detectors), "")
    own = [one for one in run.of_kind("detect") if one.record.variant == first and one.fold == release.fold]
    return next((one for one in own if one.gan_seed in (None, release.gan_seed)), None)


def histogram(run: Run) -> Picture | None:
    """Scores of the first detector, normal beside abnormal images."""
    stage = first_detector(run)
    scores = pd.DataFrame() if stage is None else _scores(stage)
    if stage is None or scores.empty:
        return None
    rate = run.experiment.anomaly.false_alarms
    alarms = scores.loc[scores["p_value"] <= rate, "anomaly_score"]
    caption = (
        f"Scores of the test images by {detector_named(stage.record.variant)}, {stage.title}. The further the two "
        "sides lie apart, the better. "
        + (f"Right of the dashed line an alarm is raised (p ≤ {rate:g})." if len(alarms) else "")
    )
    alt = "Histograms of the anomaly score of normal and of abnormal images; the AUROC is in the table below."
    classes = run.experiment.data.classes
    return Picture(
        "anomaly", alt, caption.strip(), anomaly_plot(scores, classes, alarms.min() if len(alarms) else None)
    )


def detectors_roc(run: Run) -> Picture | None:
    """ROC curves of all detectors and of the supervised classifier, patient by patient."""
    found: dict[str, list[pd.DataFrame]] = {}
    for stage in run.of_kind("detect"):
        rows = _scores(stage, all_fits=True)
        if len(rows):
            found.setdefault(stage.record.variant, []).append(rows)
    if not found:
        return None
    rows = pd.concat([one for tables in found.values() for one in tables], ignore_index=True)
    abnormal = set(patient_units(rows)[rows["normal"] == "0"])
    curves = {name: _by_patient(pd.concat(found[name]), abnormal) for name in _ordered(run, set(found))}
    supervised = _supervised(run)
    if len(supervised):
        curves[SUPERVISED] = _by_patient(supervised, abnormal)
    means = run.metrics[(run.metrics["stage"] == "anomaly") & (run.metrics["fold"] == "")]
    means = means[means["metric"] == "auroc"]
    auroc = {str(name): float(value) for name, value in zip(means["arm"], means["value"], strict=True)}
    caption = (
        f"ROC curves of {count(len(found), 'detector')} on the test patients, each the mean over its fits at equal "
        "specificity; a patient's score is the mean of the images'. "
        + (f"Dashed: {SUPERVISED}, which was shown the disease." if SUPERVISED in curves else "")
    )
    alt = "ROC curves of the anomaly detectors in one plot; their AUROC is in the table below."
    return Picture("detectors-roc", alt, caption.strip(), detectors_roc_plot(curves, auroc, SUPERVISED))


def worklist_picture(run: Run) -> Picture | None:
    """The most anomalous test images with their maps. It shows patients."""
    stage = first_detector(run)
    if stage is None or not (stage.directory / WORKLIST_PICTURE).is_file():
        return None
    caption = (
        f"The test images that look least like normal ones, by {detector_named(stage.record.variant)}, {stage.title}, "
        "each beside or above itself under its map where the detector has one. Titles: rank, class, p-value. A map "
        "says what is unusual to the detector, which need not be disease."
    )
    alt = "The most anomalous test images, ranked, with their anomaly maps."
    return Picture("worklist", alt, caption, stored_png(stage.file(WORKLIST_PICTURE), 1440, 1_200_000))


def worklist_table(run: Run) -> Table | None:
    """The images of the worklist, by id."""
    stage = first_detector(run)
    if stage is None or not (stage.directory / WORKLIST).is_file():
        return None
    table = stage.table(WORKLIST, ("rank", "image_id", "label", "score", "p_value"))
    rows = tuple(
        (row["rank"], row["image_id"], row["label"], row["score"], number(float(row["p_value"])))
        for row in table.to_dict("records")
    )
    return Table(
        f"The worklist of {detector_named(stage.record.variant)}: the most anomalous test images, ranked.",
        ("Rank", "Image", "Class", "Score", "p-value"),
        rows,
    )


def _scores(stage: StageEntry, *, all_fits: bool = False) -> pd.DataFrame:
    """Test rows of a detector's table, scores and p-values as numbers; of the first fit unless all are asked for."""
    table = stage.table(ANOMALY_SCORES, _COLUMNS)
    table = table[(table["split"] == "test") & ((table["seed"] == "0") | all_fits)]
    numbers = {name: pd.to_numeric(table[name]) for name in ("anomaly_score", "p_value")}
    gan_seed = "" if stage.gan_seed is None else str(stage.gan_seed)
    return table.assign(**numbers, fold=str(stage.fold), gan_seed=gan_seed)


def _by_patient(rows: pd.DataFrame, abnormal: set[str]) -> pd.DataFrame:
    """One row a patient and fit: `disease_score`, the mean of the images', and `diseased`."""
    means = rows.assign(unit=patient_units(rows)).groupby([*_FIT, "unit"], sort=True)["anomaly_score"].mean()
    found = means.rename("disease_score").reset_index()
    return found.assign(diseased=found["unit"].isin(abnormal))


def _supervised(run: Run) -> pd.DataFrame:
    """Test rows of the classifier that was trained with both sides, scored by what is not normal."""
    data, predictions = run.experiment.data, run.predictions
    normal = normal_classes(run.experiment.anomaly, data.classes, data.positive)
    rows = predictions[(predictions["arm"] == REFERENCE_ARM) & (predictions["split"] == "test")]
    asked = [f"score_{name}" for name in data.classes if name not in normal]
    return rows.assign(anomaly_score=np.asarray(rows[asked].sum(axis=1)))


def _ordered(run: Run, present: set[str]) -> list[str]:
    known = [name for name in run.experiment.anomaly.detectors if name in present]
    return known + sorted(present - set(known))
