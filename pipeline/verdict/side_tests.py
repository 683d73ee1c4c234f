"""Classical tests beside the verdict's interval: DeLong, McNemar, sign flips. They are told, they do not decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from pipeline.measures.paired import delong, mcnemar, sign_flip
from pipeline.verdict.comparison import Mean
from pipeline.verdict.fits import FIT_KEY, Fit, TestSet, disease_score

_FEWEST_DRAWS = 5
"""With fewer, no pattern of signs can be rarer than 1 in 16."""


def side_tests(
    table: pd.DataFrame,
    arms: tuple[str, str],
    fits: Sequence[Fit],
    positive: Sequence[str],
    tests: dict[str, TestSet],
    difference: Mean,
) -> dict[str, Any]:
    """Tests of the first arm against the second on the test patients.

    `delong_p`: the AUROC of scores averaged over an arm's fits, fold by fold, patients as clusters. `mcnemar`: of calls
    by the majority of an arm's fits, each at its own threshold, images taken as independent; counts of diseased
    (sensitivity) and healthy images that only one arm got right. Neither is given where folds share patients (labelled
    draws), since their tests are not independent. `sign_flip_p`: over labelled draws or folds.
    """
    test = table[(table["split"] == "test") & table["arm"].isin(arms)]
    test = test.assign(score=disease_score(test, positive), disease=test["label"].isin(positive))
    test = test.assign(called=(test["score"] >= _thresholds(test, fits)).astype(float))
    diseased = test.drop_duplicates(["fold", "image_id"]).set_index(["fold", "image_id"])["disease"].sort_index()
    scores, shares = (
        test.pivot_table(index=["fold", "image_id"], columns="arm", values=name).loc[diseased.index, list(arms)]
        for name in ("score", "called")
    )
    found: dict[str, Any] = {}
    patients = [set(test.patients) for test in tests.values()]
    if sum(map(len, patients)) == len(set().union(*patients)):
        found["delong_p"] = _delong(scores, diseased, tests)
        right = (shares >= 0.5).eq(diseased, axis=0)
        for name, side in (("sensitivity", diseased), ("specificity", ~diseased)):
            found[f"mcnemar_{name}"] = _mcnemar(right[side].to_numpy())
    if len(difference.by_fold) >= _FEWEST_DRAWS:
        found["sign_flip_p"] = sign_flip(list(difference.by_fold.values()))
    return found


def _thresholds(test: pd.DataFrame, fits: Sequence[Fit]) -> np.ndarray:
    known = {(fit.arm, fit.fold, fit.gan_seed, fit.seed): fit.threshold for fit in fits}
    return np.array([known[key] for key in zip(*(test[name] for name in FIT_KEY), strict=True)])


def _delong(scores: pd.DataFrame, diseased: pd.Series, tests: dict[str, TestSet]) -> float | None:
    """None where it cannot be computed."""
    values, variances = [], []
    for fold, test in tests.items():
        at = pd.MultiIndex.from_product([[fold], test.image_ids])
        disease, both = diseased.loc[at].to_numpy(dtype=bool), scores.loc[at].to_numpy()
        if disease.all() or not disease.any():
            return None
        found = delong(both[:, 0], both[:, 1], disease, test.patients)
        values.append(found.value)
        variances.append(found.error**2)
    error = float(np.sum(variances)) ** 0.5
    return float(2 * ndtr(-abs(np.sum(values)) / error)) if error else None


def _mcnemar(right: np.ndarray) -> dict[str, float] | None:
    if not len(right):
        return None
    only_first, only_second, p = mcnemar(right[:, 0], right[:, 1])
    return {"only_arm": only_first, "only_reference": only_second, "p": p}
