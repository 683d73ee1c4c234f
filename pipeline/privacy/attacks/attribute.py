"""Can sex, or an age band, of a patient be read from the synthetic image that is nearest to the patient's own?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from pipeline.privacy.attack import AttackFacts, Candidates, Images, Target, halves_of_patients
from pipeline.privacy.guessing import values_of
from pipeline.privacy.registered import averaged_down, registered_distances, standardised

_COMPONENTS = 40


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """The probability that is given to the patient's true values, the mean over all columns, [N]; NaN where none is
    known."""
    given = np.stack([likely for likely, _ in _read(target, candidates).values()])
    known = np.isfinite(given)
    return np.where(known.any(axis=0), np.nansum(given, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)


def guesses(target: Target, candidates: Candidates) -> dict[str, np.ndarray]:
    """Whether the likeliest value is the true one, by column: [N] of 0 and 1, NaN where the truth is not known."""
    return {column: right for column, (_, right) in _read(target, candidates).items()}


def _read(target: Target, candidates: Candidates) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By column, the probability of the true value and whether it is the likeliest, [N] each.

    A logistic regression on principal components of one half of the patients' own images reads the synthetic images
    nearest to the other half's: what anybody can see in an image of such patients.
    """
    images, shown = (_cells(one) for one in (candidates.images, target.synthetic))
    nearest = registered_distances(target.synthetic, candidates.images, target.device).argmin(axis=0)
    halves = halves_of_patients(candidates, target.seed)
    return {
        column: _of_column(values_of(candidates, column), images, shown[nearest], halves)
        for column in target.config.sensitive
    }


def _of_column(
    truth: np.ndarray, images: np.ndarray, seen: np.ndarray, halves: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    likely, right = (np.full(len(truth), np.nan) for _ in range(2))
    for half in (halves, ~halves):
        learned, asked = np.flatnonzero(~half & (truth != "")), np.flatnonzero(half & (truth != ""))
        values = sorted(set(truth[learned]))
        if len(values) < 2 or not len(asked):
            continue
        size = min(_COMPONENTS, len(learned) - 1, images.shape[1])
        reader = make_pipeline(PCA(size, random_state=0), StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        chance = reader.fit(images[learned], truth[learned]).predict_proba(seen[asked])
        place = pd.Index(reader.classes_).get_indexer(pd.Index(truth[asked]))
        likely[asked] = np.where(place < 0, 0.0, chance[np.arange(len(asked)), place])
        right[asked] = chance.argmax(axis=1) == place
    return likely, right


def _cells(images: Images) -> np.ndarray:
    return torch.cat([standardised(averaged_down(block)).flatten(1) for block in images]).double().numpy()


ATTACK = AttackFacts(
    "After Giomi et al., A Unified Framework for Quantifying Privacy Risk in Synthetic Data, PoPETs 2023, inference",
    scores, guesses=guesses, note="Reads the columns that privacy.sensitive names from the nearest synthetic image.",
)  # fmt: skip
