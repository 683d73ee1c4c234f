"""From predictions to figures: every fit on its own threshold, every draw of patients at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.errors import DataError
from pipeline.core.seeds import numpy_generator
from pipeline.measures.classification import weighted_auroc, weighted_rate, youden_threshold
from pipeline.measures.resampling import MIN_PATIENTS, Interval, Spread, interval, patient_weights, spread_of_fits

METRICS = ("auroc", "sensitivity", "specificity", "balanced_accuracy")
FIT_KEY = ["arm", "fold", "gan_seed", "seed"]


@dataclass(frozen=True)
class Fit:
    """One classifier on one fold's test patients.

    Attributes:
        threshold: fixed on val.
        values: metric -> [1 + draws]; the first entry is the plain figure, the others are bootstrap draws.
    """

    arm: str
    fold: str
    gan_seed: str
    seed: str
    threshold: float
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class TestSet:
    """A fold's test images: the order, the patients and the draws that all its fits share."""

    image_ids: pd.Index
    patients: np.ndarray
    weights: np.ndarray

    @property
    def num_patients(self) -> int:
        return len(np.unique(self.patients))


def disease_score(table: pd.DataFrame, positive: Sequence[str]) -> np.ndarray:
    """Probability of the disease side: the sum of its classes' scores."""
    return table[[f"score_{name}" for name in positive]].astype(float).sum(axis=1).to_numpy()


def patient_units(table: pd.DataFrame) -> np.ndarray:
    """What may be drawn as a whole: the patient, or the image where there is no patient id."""
    named = table["patient_id"].astype(str)
    return np.where(named == "", "image " + table["image_id"].astype(str), "patient " + named)


def draw_test_sets(table: pd.DataFrame, draws: int, seed: int) -> dict[str, TestSet]:
    """For each fold its test images and `draws` bootstrap draws of its patients; the first row of weights is all ones.

    Raises:
        DataError: fits of one fold were applied to different test images, so that they cannot be paired.
    """
    found = {}
    for fold, rows in table[table["split"] == "test"].groupby("fold", sort=True):
        first = rows.drop_duplicates("image_id")
        sizes = rows.groupby(FIT_KEY)["image_id"].agg(["size", "nunique"])
        if (sizes != len(first)).to_numpy().any():
            raise DataError(f"predictions: not every fit of fold {fold} was applied once to each of its test images.")
        units = patient_units(first)
        random = numpy_generator(seed, "patients", str(fold))
        weights = np.vstack([np.ones((1, len(first))), patient_weights(units, draws, random)])
        found[str(fold)] = TestSet(pd.Index(first["image_id"]), units, weights)
    return found


def figures_of_fits(
    table: pd.DataFrame, positive: Sequence[str], tests: dict[str, TestSet], metrics: Sequence[str] = METRICS
) -> list[Fit]:
    """The figures of every fit in `table` (disease against the rest).

    Raises:
        DataError: a fit has no val predictions to fix its threshold on, or val has one side only.
    """
    return [
        _figures([str(part) for part in key], rows, positive, tests[str(key[1])], metrics)
        for key, rows in table[table["split"].isin(["val", "test"])].groupby(FIT_KEY, sort=True)
    ]


def _figures(
    key: Sequence[str], rows: pd.DataFrame, positive: Sequence[str], test_set: TestSet, metrics: Sequence[str]
) -> Fit:
    val = rows[rows["split"] == "val"]
    val_disease = val["label"].isin(positive).to_numpy()
    if not 0 < val_disease.sum() < len(val):
        raise DataError(f"predictions: {' '.join(key)} has no val images of both sides to fix its threshold on.")
    threshold = youden_threshold(disease_score(val, positive), val_disease)
    test = rows[rows["split"] == "test"].set_index("image_id").loc[test_set.image_ids]
    disease, score, weights = test["label"].isin(positive).to_numpy(), disease_score(test, positive), test_set.weights
    values = {}
    if "auroc" in metrics:
        values["auroc"] = weighted_auroc(score, disease, weights)
    called = score >= threshold
    values["sensitivity"] = weighted_rate(called, disease, weights)
    values["specificity"] = weighted_rate(~called, ~disease, weights)
    values["balanced_accuracy"] = (values["sensitivity"] + values["specificity"]) / 2
    arm, fold, gan_seed, seed = key
    return Fit(arm, fold, gan_seed, seed, threshold, {name: values[name] for name in metrics})


def arm_interval(fits: Sequence[Fit], metric: str, tests: dict[str, TestSet], alpha: float) -> Interval:
    """Mean over an arm's fits with an interval over patients and fits."""
    return combine([(1.0, fits)], metric, tests, alpha)


def combine(
    sides: Sequence[tuple[float, Sequence[Fit]]], metric: str, tests: dict[str, TestSet], alpha: float
) -> Interval:
    """A signed sum of arms' means, such as +1 x arm and -1 x reference, with an interval over patients and fits.

    Folds weigh equally and are never pooled. Patients are paired: both arms see the same draws. Fits are unpaired:
    each side adds the scatter of its own independent repeats, which are GAN seeds where an arm has several, else
    classifier seeds. No interval is given below 10 test patients in all, or where a draw cannot be computed.
    """
    value, draws, spreads = 0.0, 0.0, []
    for fold in tests:
        for sign, fits in sides:
            here = [fit for fit in fits if fit.fold == fold]
            means = independent_units(here, metric)
            mean_draws = np.mean([fit.values[metric][1:] for fit in here], axis=0)
            value += sign * float(means.mean()) / len(tests)
            draws = draws + sign * mean_draws / len(tests)
            part = spread_of_fits(means)
            spreads.append(Spread(part.variance / len(tests) ** 2, part.freedom))
    patients = sum(test.num_patients for test in tests.values())
    usable = np.asarray(draws)[np.isfinite(draws)]
    if patients < MIN_PATIENTS or len(usable) < 0.95 * np.size(draws):
        return Interval(value, None, None)
    spreads.append(Spread(float(np.var(usable, ddof=1)), patients - 1))
    return interval(value, spreads, alpha)


def independent_units(fits: Sequence[Fit], metric: str) -> np.ndarray:
    """Means over what was repeated independently: GAN seeds if there are several, else classifier seeds."""
    seeds = sorted({fit.gan_seed for fit in fits})
    if len(seeds) > 1:
        return np.array([np.mean([fit.values[metric][0] for fit in fits if fit.gan_seed == one]) for one in seeds])
    return np.array([fit.values[metric][0] for fit in fits])
