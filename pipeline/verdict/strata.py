"""Test images across sites: only one site's, only those that contradict training, or all cells counting the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.core.errors import DataError
from pipeline.core.patients import patient_units
from pipeline.data.cohort.cells import RARE
from pipeline.measures.association import told_from
from pipeline.measures.resampling import MIN_PATIENTS, Interval
from pipeline.verdict.fits import NO_SITES, TestSet, by_patient, draw_test_sets
from pipeline.verdict.power import sides_tested

BALANCED, REVERSED, SITE = "balanced", "reversed", "site="
WORST_CELL = "worst_cell"
_WORDS = {
    BALANCED: "test images of all sites, every cell of site and class counting the same",
    REVERSED: "test images of the cells of site and class that are rare in training, each cell counting the same",
}


def stratum_words(stratum: str) -> str:
    """What the figures are of, for a sentence."""
    return _WORDS.get(stratum, f"test images of the site {stratum.removeprefix(SITE)}")


def in_stratum(table: pd.DataFrame, stratum: str) -> pd.DataFrame:
    """The predictions with only those test rows that the stratum has; all val rows stay, whatever their site.

    So thresholds are fixed on all validation patients, and a site of the test set never has one of its own.

    Raises:
        DataError: the predictions have no column `site` (or `cell`), or the stratum has no test image.
    """
    if not stratum:
        return table
    column = "cell" if stratum == REVERSED else "site"
    if column not in table:
        raise DataError(
            f"predictions: verdict.stratum: {stratum} needs the column {column}, which says for each image "
            + ("whether its cell of site and class is `rare` in training, or `common`." if column == "cell" else
               "where it comes from.")
        )  # fmt: skip
    if stratum == BALANCED:
        return table
    wanted = RARE if stratum == REVERSED else stratum.removeprefix(SITE)
    found = table[(table["split"] != "test") | (table[column] == wanted)]
    if not (found["split"] == "test").any():
        raise DataError(
            f"predictions: no test image is in the stratum {stratum}. "
            + ("No cell of site and class is rarer in training than chance has it." if stratum == REVERSED else
               f"The sites are: {', '.join(sorted(set(table['site'])))}.")
        )  # fmt: skip
    return found


def equal_cells(tests: dict[str, TestSet]) -> dict[str, TestSet]:
    """The test sets with weights under which every cell of site and class counts the same, in every draw by itself."""
    return {fold: replace(test, weights=_equal(test)) for fold, test in tests.items()}


def _equal(test: TestSet) -> np.ndarray:
    assert test.cells is not None
    weights = np.zeros(test.weights.shape)
    numbers = np.unique(test.cells)
    for number in numbers:
        own = test.cells == number
        part = test.weights[:, own]
        total = part.sum(axis=1, keepdims=True)
        weights[:, own] = np.divide(part, total, out=np.full(part.shape, np.nan), where=total > 0)
    weights[np.isnan(weights).any(axis=1)] = 0.0  # a draw without a cell has no figure
    return weights * len(test.cells) / len(numbers)


def judged_images(
    table: pd.DataFrame, positive: tuple[str, ...], unit: str, stratum: str, draws: int, seed: int
) -> tuple[pd.DataFrame, tuple[str, ...], dict[str, TestSet]]:
    """What a comparison is made on: the rows (images or patients), the disease side by their labels, the test sets.

    Raises:
        DataError: as `in_stratum`, `by_patient` and `draw_test_sets`.
    """
    table = in_stratum(table, stratum)
    if unit == "patient":
        table, positive = by_patient(table, positive), ("disease",)
    tests = draw_test_sets(table, draws, seed)
    return table, positive, equal_cells(tests) if stratum in (BALANCED, REVERSED) else tests


def patients_by_cell(table: pd.DataFrame, positive: Sequence[str]) -> dict[bool, dict[str, int]]:
    """Test patients of each cell, diseased (True) and not: `SITE, LABEL` -> how many.

    Raises:
        DataError: the predictions have no column `site`.
    """
    if "site" not in table:
        raise DataError(NO_SITES)
    tested = table[table["split"] == "test"]
    units, cell = patient_units(tested), tested["site"].astype(str) + ", " + tested["label"].astype(str)
    counts = units.groupby(cell).nunique()
    diseased = set(cell[tested["label"].isin(list(positive))])
    return {
        side: {str(name): int(count) for name, count in counts.items() if (name in diseased) == side}
        for side in (True, False)
    }


def too_thin(table: pd.DataFrame, positive: Sequence[str], endpoint: str, stratum: str) -> str:
    """Why a figure of cells deserves no interval, in a sentence; empty where it does.

    Args:
        table: predictions, of which the stratum's test rows are left.
    """
    if not by_cells(endpoint, stratum):
        return ""
    counts = {name: count for side in patients_by_cell(table, positive).values() for name, count in side.items()}
    least = min(counts, key=lambda name: counts[name])
    if counts[least] >= MIN_PATIENTS:
        return ""
    return (
        f"The cell {least} has {counts[least]} test patients; below {MIN_PATIENTS} a figure in which it counts as much "
        "as the others has no interval, and nothing was compared. Add test patients, or judge another stratum."
    )


def by_cells(endpoint: str, stratum: str) -> bool:
    """Whether a small cell counts as much as a large one."""
    return stratum in (BALANCED, REVERSED) or endpoint == WORST_CELL


def sides_judged(
    table: pd.DataFrame, positive: Sequence[str], unit: str, endpoint: str, stratum: str
) -> tuple[int, int]:
    """Test patients of each side, as `sides_tested`, for what a comparison can show.

    Where cells count the same they are as many as would tell as much if a side were one cell: k² / Σ 1 / n over its k
    cells. For the worst cell it is the smallest of all cells, twice.

    Args:
        table: columns split, label, image_id and patient_id, and site where cells count; the stratum's test rows.
    """
    if not by_cells(endpoint, stratum):
        return sides_tested(table, positive, unit)
    counts = patients_by_cell(table, positive)
    if endpoint == WORST_CELL:
        least = min(count for side in counts.values() for count in side.values())
        return least, least
    sides = [np.array(list(counts[side].values()), dtype=float) for side in (True, False)]
    diseased, healthy = (int(len(cells) ** 2 / (1 / cells).sum()) if len(cells) else 0 for cells in sides)
    return diseased, healthy


def told_by_site(
    trained: pd.DataFrame, site: str, classes: Sequence[str], seed: int, draws: int, alpha: float
) -> Interval:
    """Balanced accuracy of calling the class from the site alone, with an interval over patients; see `told_from`.

    Args:
        trained: training images, each once: image_id, patient_id, label and the column `site`.
    """
    labelled = trained[trained["label"] != ""]
    labels = np.asarray(pd.Index(classes).get_indexer(pd.Index(labelled["label"])), dtype=np.int64)
    groups = np.asarray(pd.factorize(labelled[site])[0], dtype=np.int64)
    return told_from(groups, labels, patient_units(labelled).to_numpy(dtype=str), seed, draws, alpha)
