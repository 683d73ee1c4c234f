"""From predictions to figures: every fit on its own threshold, every draw of patients at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.errors import DataError
from pipeline.core.patients import patient_units
from pipeline.core.seeds import numpy_generator
from pipeline.measures.classification import (
    choose_threshold,
    weighted_auprc,
    weighted_auroc,
    weighted_brier,
    weighted_ece,
    weighted_rate,
)
from pipeline.measures.resampling import jackknife_weights, patient_weights

METRICS = (
    "auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "balanced_accuracy", "brier", "ece",
)  # fmt: skip
NO_SITES = "predictions: cells of site and class need a column site, which says for each image where it comes from."
FIT_KEY = ["arm", "fold", "gan_seed", "seed"]


@dataclass(frozen=True)
class Fit:
    """One classifier on one fold's test patients.

    Attributes:
        threshold: fixed on val.
        values: metric -> [1 + draws + jackknife]: the plain figure, then a value a row of the test set's weights.
    """

    arm: str
    fold: str
    gan_seed: str
    seed: str
    threshold: float
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class TestSet:
    """A fold's test images: the order, the patients and the draws that all its fits share.

    Attributes:
        weights: [1 + draws + jackknife, n]: ones, bootstrap draws of patients, then one block of patients left out.
        draws: how many of them are bootstrap draws.
        cells: [n] number of each image's cell of site and class; None where no site is known.
    """

    image_ids: pd.Index
    patients: np.ndarray
    weights: np.ndarray
    draws: int
    cells: np.ndarray | None = None

    @property
    def num_patients(self) -> int:
        return len(np.unique(self.patients))


def disease_score(table: pd.DataFrame, positive: Sequence[str]) -> np.ndarray:
    """Probability of the disease side: the sum of its classes' scores."""
    return table[[f"score_{name}" for name in positive]].astype(float).sum(axis=1).to_numpy()


def by_patient(table: pd.DataFrame, positive: Sequence[str]) -> pd.DataFrame:
    """One row a patient and fit: the mean of the images' disease scores; diseased if any image is.

    The labels are `disease` and `rest`, the scores `score_disease` and `score_rest`. A column `site` is kept.

    Raises:
        DataError: a patient has images of several sites.
    """
    rows = table.assign(
        unit=patient_units(table), disease=table["label"].isin(positive), score=disease_score(table, positive)
    )
    key = [*FIT_KEY, "split", "unit"]
    site = ["site"] if "site" in rows else []
    found = rows.groupby([*key, *site], sort=True).agg(disease=("disease", "any"), score=("score", "mean"))
    if site and found.reset_index().duplicated(key).any():
        raise DataError(
            "predictions: some patients have images of several sites, so a patient is in no one cell of site and "
            "class. Use verdict.unit: image."
        )
    found = found.reset_index().rename(columns={"unit": "image_id"})
    return found.assign(
        patient_id=found["image_id"],
        label=np.where(found["disease"], "disease", "rest"),
        score_disease=found["score"],
        score_rest=1 - found["score"],
    )


def with_joined_sites(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one site a patient: who has images of A and of B is of the site `A + B`."""
    if "site" not in table:
        return table
    units = patient_units(table)
    pairs = pd.DataFrame({"unit": units, "site": table["site"].astype(str)}).drop_duplicates().sort_values("site")
    return table.assign(site=units.map(pairs.groupby("unit")["site"].agg(" + ".join)))


def draw_test_sets(table: pd.DataFrame, draws: int, seed: int) -> dict[str, TestSet]:
    """For each fold its test images and `draws` bootstrap draws of its patients, kept apart by class (and site).

    A patient who is tested in several folds is drawn alike in all of them.

    Raises:
        DataError: fits of one fold were applied to different test images, so that they cannot be paired.
    """
    test = table[table["split"] == "test"]
    firsts = {}
    for fold, rows in test.groupby("fold", sort=True):
        firsts[str(fold)] = first = rows.drop_duplicates("image_id")
        sizes = rows.groupby(FIT_KEY)["image_id"].agg(["size", "nunique"])
        if (sizes != len(first)).to_numpy().any():
            raise DataError(f"predictions: not every fit of fold {fold} was applied once to each of its test images.")
    if not firsts:
        return {}
    everyone = pd.concat(firsts.values())
    units = patient_units(everyone).to_numpy(dtype=str)
    names, place = np.unique(units, return_index=True)
    random = numpy_generator(seed, "patients")
    cell = _cells(everyone)
    drawn = patient_weights(units, draws, random, cell)[:, place]
    left_out = jackknife_weights(names, random)
    weights = np.vstack([np.ones((1, len(names))), drawn, left_out])
    found = {}
    for fold, first in firsts.items():
        own = patient_units(first).to_numpy(dtype=str)
        cells = np.searchsorted(np.unique(cell), _cells(first)) if "site" in table else None
        found[fold] = TestSet(pd.Index(first["image_id"]), own, weights[:, np.searchsorted(names, own)], draws, cells)
    return found


def _cells(rows: pd.DataFrame) -> np.ndarray:
    """The class of each image, with its site where there is one."""
    cell = rows["label"] + "\n" + rows["site"] if "site" in rows else rows["label"]
    return cell.to_numpy(dtype=str)


def figures_of_fits(
    table: pd.DataFrame,
    positive: Sequence[str],
    tests: dict[str, TestSet],
    metrics: Sequence[str] = METRICS,
    threshold: str = "youden-smoothed",
) -> list[Fit]:
    """The figures of every fit in `table` (disease against the rest).

    Args:
        threshold: the rule by which each fit's threshold is fixed on its val images; see `choose_threshold`.

    Raises:
        DataError: a fit has no val predictions to fix its threshold on, or val has one side only.
    """
    part = table[table["split"].isin(["val", "test"])]
    score, disease = disease_score(part, positive), part["label"].isin(positive).to_numpy()
    is_val, ids = (part["split"] == "val").to_numpy(), part["image_id"].to_numpy()
    fits = []
    numbers = part.groupby(FIT_KEY, sort=True).ngroup().to_numpy()
    for number in range(numbers.max() + 1):
        places = np.flatnonzero(numbers == number)
        arm, fold, gan_seed, seed = (str(part[name].iloc[places[0]]) for name in FIT_KEY)
        val, test = places[is_val[places]], places[~is_val[places]]
        if not 0 < disease[val].sum() < len(val):
            named = f"arm {arm}, fold {fold}, seed {seed}"
            raise DataError(f"predictions: {named} has no val images of both sides to fix its threshold on.")
        cut = choose_threshold(threshold, score[val], disease[val])
        test = test[pd.Index(ids[test]).get_indexer(tests[fold].image_ids)]
        seen = Seen(score[test], disease[test], score[test] >= cut, tests[fold].weights, tests[fold].cells)
        fits.append(Fit(arm, fold, gan_seed, seed, cut, {name: FORMULAS[name](seen) for name in metrics}))
    return fits


@dataclass(frozen=True)
class Seen:
    """What the figures of a fit are made of: of each test image its score, whether it is diseased, and is called so,
    the rows of weights, and the cell of site and class, if sites are known."""

    score: np.ndarray
    disease: np.ndarray
    called: np.ndarray
    weights: np.ndarray
    cells: np.ndarray | None = None


def _balanced(one: Seen) -> np.ndarray:
    hits = weighted_rate(one.called, one.disease, one.weights)
    return (hits + weighted_rate(~one.called, ~one.disease, one.weights)) / 2


def _worst_cell(one: Seen) -> np.ndarray:
    """The share of right calls in the cell where it is lowest; NaN in draws in which a cell has no image."""
    if one.cells is None:
        raise DataError(NO_SITES)
    right = one.called == one.disease
    return np.min([weighted_rate(right, one.cells == cell, one.weights) for cell in np.unique(one.cells)], axis=0)


FORMULAS: dict[str, Callable[[Seen], np.ndarray]] = {
    "auroc": lambda one: weighted_auroc(one.score, one.disease, one.weights),
    "auprc": lambda one: weighted_auprc(one.score, one.disease, one.weights),
    "sensitivity": lambda one: weighted_rate(one.called, one.disease, one.weights),
    "specificity": lambda one: weighted_rate(~one.called, ~one.disease, one.weights),
    "ppv": lambda one: weighted_rate(one.disease, one.called, one.weights),
    "npv": lambda one: weighted_rate(~one.disease, ~one.called, one.weights),
    "balanced_accuracy": _balanced,
    "brier": lambda one: weighted_brier(one.score, one.disease, one.weights),
    "ece": lambda one: weighted_ece(one.score, one.disease, one.weights),
    "worst_cell": _worst_cell,
}
"""What was seen of a fit -> the figure under each row of weights. PPV and NPV hold for the test set's share of diseased
patients, which the draws keep."""
