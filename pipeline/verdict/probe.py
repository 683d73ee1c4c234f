"""The confounder probe: can the scanner be read off the images, does it tell the class, does the classifier listen?

The audit asks whether a column of the manifest goes with the class. That is harmless where images do not show it, and a
classifier may have learnt the disease all the same; these two questions need images and predictions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.core.metrics import MetricRow, as_text
from pipeline.core.patients import patient_units
from pipeline.core.seeds import numpy_generator
from pipeline.data.batches.dataset import DataSet
from pipeline.data.cohort.confounders import Finding, find_confounders
from pipeline.measures.classification import weighted_auroc
from pipeline.measures.readable import Readable, readable
from pipeline.measures.resampling import MIN_PATIENTS, Interval
from pipeline.nets.extractors import EffNetLite0
from pipeline.verdict.comparison import combine
from pipeline.verdict.decide import VerdictPlan
from pipeline.verdict.fits import Fit, TestSet, disease_score, draw_test_sets
from pipeline.verdict.subgroups import banded

STAGE = "probe"
FROM_IMAGE, FROM_COLUMN, FROM_SCORE, WARNING = (
    "column_from_image", "label_from_column", "column_from_score", "probe_warning",
)  # fmt: skip
ALPHA = 0.01
MAX_IMAGES = 1500
_BLOCK = 256


def probe_rows(
    dataset: DataSet, manifest: pd.DataFrame, predictions: pd.DataFrame, columns: Sequence[str], plan: VerdictPlan,
    classes: Sequence[str], asked_of: set[str] | None = None,
) -> list[MetricRow]:  # fmt: skip
    """Rows of metrics.csv, four questions a column, and a row `probe_warning` where a column deserves one.

    1. `column_from_image`: AUROC of telling the column's values apart in images of one class, by a linear classifier on
       EfficientNet-Lite0 features, cross-validated by patient; with its chance level and p-value in `detail`.
    2. `label_from_column`: balanced accuracy of guessing the class from the column alone (the audit's figure).
    3. `column_from_score`, for each arm: AUROC of telling the column's value by the disease score, among test images of
       one class. 0.5 = the score says nothing; an interval without 0.5 = the classifier hears it, or the disease looks
       different there.

    It warns where a column can be read off the images (p below 0.01, shared among the columns) and goes with the class
    or with the score. Numbers are cut at their median. A column without two values of 10 patients each is not probed.

    Args:
        dataset: the prepared images.
        manifest: the split's, with the columns as the source gave them.
        predictions: text keys.
        asked_of: ids of the images that the first two questions are asked of; None = all that are labelled.

    Raises:
        DataError: the manifest has no such column.
    """
    absent = [name for name in columns if name not in manifest]
    if absent:
        raise DataError(
            f"verdict.probe: the manifest has no column {', '.join(absent)}. It has: {', '.join(manifest.columns)}."
        )
    known = manifest[manifest["image_id"].isin(set(dataset.manifest["image_id"])) & (manifest["label"] != "")]
    known = known[known["split"] != "external"].reset_index(drop=True)
    asked = known if asked_of is None else known[known["image_id"].isin(asked_of)].reset_index(drop=True)
    findings = {finding.column: finding for finding in find_confounders(asked, classes, plan.seed)}
    seen = _some(asked, plan.seed)
    features = _features(dataset, seen) if columns else np.empty((0, 0))
    rows: list[MetricRow] = []
    for name in columns:
        values = _values(known, name)
        if values.shape[1] == 0:
            rows.append(_row(name, FROM_IMAGE, detail=f"Not probed: no two values of {MIN_PATIENTS} patients each."))
            continue
        told = _readable(features, seen, values, classes, plan)
        scores = [row for value in values for row in _score_rows(predictions, values[value], name, len(values.T), plan)]
        rows += [*_image_rows(name, told, seen), *_column_rows(name, findings.get(name), classes), *scores]
        rows += _warning(name, told, findings.get(name), scores, len(columns), classes)
    return rows


def probe_warnings(rows: Sequence[MetricRow]) -> tuple[str, ...]:
    """The texts of the warnings among `rows`."""
    return tuple(row.detail for row in rows if row.metric == WARNING)


def _some(known: pd.DataFrame, seed: int) -> pd.DataFrame:
    """At most `MAX_IMAGES` images, of whole patients drawn at random: more would only cost time."""
    units = patient_units(known).to_numpy(dtype=str)
    names = np.unique(units)
    rank = dict(zip(numpy_generator(seed, "probe").permutation(names), range(len(names)), strict=True))
    order = np.argsort([rank[unit] for unit in units], kind="stable")[:MAX_IMAGES]
    return known.iloc[np.sort(order)]


def _features(dataset: DataSet, seen: pd.DataFrame) -> NDArray[np.float64]:
    rows, extractor = dataset.rows(list(seen["image_id"])), EffNetLite0()
    blocks = [rows[low : low + _BLOCK] for low in range(0, len(rows), _BLOCK)]
    return np.concatenate([extractor.extract(dataset.tensor(block)).numpy() for block in blocks]).astype(np.float64)


def _values(known: pd.DataFrame, name: str) -> pd.DataFrame:
    """Which images have each of the column's values [images, values]; one of two is enough, rare ones are left out."""
    texts, units = banded(known[name], bands=2), patient_units(known)
    found = {}
    for value in texts.value_counts().index:
        has = texts == value
        if min(units[has].nunique(), units[~has].nunique()) >= MIN_PATIENTS:
            found[str(value)] = has.to_numpy()
    if texts.nunique() == 2:
        found = dict(list(found.items())[:1])
    return pd.DataFrame(found, index=pd.Index(known["image_id"]), dtype=bool)


def _readable(
    features: NDArray[np.float64], seen: pd.DataFrame, values: pd.DataFrame, classes: Sequence[str], plan: VerdictPlan
) -> Readable | None:
    labels = np.asarray(pd.Index(classes).get_indexer(pd.Index(seen["label"])), dtype=np.int64)
    chosen = values.loc[seen["image_id"]].to_numpy()
    return readable(features, chosen, labels, patient_units(seen).to_numpy(dtype=str), plan.seed, alpha=plan.alpha)


def _image_rows(name: str, told: Readable | None, seen: pd.DataFrame) -> list[MetricRow]:
    if told is None:
        return [_row(name, FROM_IMAGE, detail="Not probed: no two images of one class to compare.")]
    detail = f"linear on {EffNetLite0.NAME}, within a class; chance {told.chance:.2f}, p = {told.p_value:.3f}"
    return [_row(name, FROM_IMAGE, told.auroc, detail=detail, patients=len(set(patient_units(seen))), images=len(seen))]


def _column_rows(name: str, finding: Finding | None, classes: Sequence[str]) -> list[MetricRow]:
    if finding is None:
        return []
    detail = f"guessing {1 / len(classes):.2f}; Cramér's V {finding.cramers_v:.2f}, p = {finding.p_value:.3f}"
    return [_row(name, FROM_COLUMN, Interval(finding.guessed, None, None), detail=detail)]


def _score_rows(
    predictions: pd.DataFrame, has: pd.Series, name: str, values: int, plan: VerdictPlan
) -> list[MetricRow]:
    """Of every arm: how well the disease score tells one value, in test images of one class; alpha shared by values."""
    test = predictions[(predictions["split"] == "test") & predictions["image_id"].isin(set(has.index))]
    tests = draw_test_sets(test, plan.bootstrap, plan.seed)
    alpha, rows = plan.alpha / values, []
    for arm, of_arm in test.groupby("arm", sort=False):
        fits = [
            _tells(key, fit, has, tests[str(key[0])], plan)
            for key, fit in of_arm.groupby(["fold", "gan_seed", "seed"], sort=True)
        ]
        fits = [fit for fit in fits if np.isfinite(fit.values[FROM_SCORE][0])]
        usable = {fold: one for fold, one in tests.items() if any(fit.fold == fold for fit in fits)}
        if not usable:
            continue
        found = combine([(1.0, fits)], FROM_SCORE, usable, alpha).interval(alpha)
        first = of_arm.drop_duplicates("image_id")
        own = first["image_id"].map(has).to_numpy(dtype=bool)
        if min(len(set(patient_units(first[side]))) for side in (own, ~own)) < MIN_PATIENTS:
            found = Interval(found.value, None, None)
        detail = f"{has.name} against the rest, within a class; 0.5 = the score does not tell"
        patients = len(set(patient_units(first)))
        rows.append(_row(name, FROM_SCORE, found, arm=str(arm), detail=detail, patients=patients, images=len(first)))
    return rows


def _tells(key: tuple[object, ...], rows: pd.DataFrame, has: pd.Series, test: TestSet, plan: VerdictPlan) -> Fit:
    """AUROC of one fit's disease score for a value of the column: pairs of images of one class only."""
    rows = rows.set_index("image_id").loc[test.image_ids]
    score, value = disease_score(rows, plan.positive), has.loc[test.image_ids].to_numpy()
    won, pairs = np.zeros(len(test.weights)), np.zeros(len(test.weights))
    for label in sorted(set(rows["label"])):
        own = (rows["label"] == label).to_numpy()
        weights = test.weights[:, own]
        count = (weights @ value[own]) * (weights @ ~value[own])
        won += np.nan_to_num(weighted_auroc(score[own], value[own], weights)) * count
        pairs += count
    figures = np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
    fold, gan_seed, seed = map(str, key)
    return Fit(str(rows["arm"].iloc[0]), fold, gan_seed, seed, float("nan"), {FROM_SCORE: figures})


def _warning(
    name: str, told: Readable | None, finding: Finding | None, scores: Sequence[MetricRow], columns: int,
    classes: Sequence[str],
) -> list[MetricRow]:  # fmt: skip
    if told is None or told.p_value >= ALPHA / columns + 1e-9 or told.auroc.value <= told.chance:
        return []
    heard = [row for row in scores if row.ci_low and not float(row.ci_low) <= 0.5 <= float(row.ci_high)]
    entangled = finding is not None and finding.entangled
    text = f"{name} can be read off the images (AUROC {told.auroc.value:.2f} in images of one class)"
    if finding is not None and entangled:
        chance = f"guessing {1 / len(classes):.0%}"
        text += f" and goes with the class (told from it alone: {finding.guessed:.0%} right, {chance})"
    if heard:
        arms = ", ".join(dict.fromkeys(row.arm for row in heard))
        text += f"; the disease score tells it within a class ({arms})"
    text += ": a classifier may read it instead of the disease. Test on patients in whom the two do not go together."
    return [_row(name, WARNING, detail=text)] if entangled or heard else []


def _row(
    column: str, metric: str, found: Interval | None = None, *, arm: str = "", detail: str, patients: int = 0,
    images: int = 0,
) -> MetricRow:  # fmt: skip
    value, low, high = ("", "", "") if found is None else (
        as_text(found.value), as_text(found.low), as_text(found.high),
    )  # fmt: skip
    return MetricRow(
        stage=STAGE, arm=arm, split="test" if metric == FROM_SCORE else "", subgroup=column, metric=metric, value=value,
        ci_low=low, ci_high=high, n_patients=str(patients or ""), n_images=str(images or ""), detail=detail,
    )  # fmt: skip
