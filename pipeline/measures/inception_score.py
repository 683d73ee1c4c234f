"""The Inception score's idea with a classifier of the run's own classes."""

from __future__ import annotations

import numpy as np

from pipeline.core.errors import DataError


def inception_score(probabilities: np.ndarray, splits: int = 1) -> float:
    """exp of the mean divergence KL(p(y|x) || p(y)): from 1 (all images look the same to the classifier) to K classes.

    Salimans et al., NeurIPS 2016. Their classifier knew photographs; with one fitted to the run's own classes the
    score says that images look like clear cases of all classes. It does not compare with real images, and one good
    image a class is enough for K: read it beside coverage. With `splits`, the mean of the scores of so many parts;
    part i takes every `splits`-th image from the i-th, so that sets ordered by class are mixed. A part of few images
    scores low (Barratt & Sharma 2018), hence 1 unless told.

    Args:
        probabilities: [N, K], rows of sum 1.
        splits: parts.

    Raises:
        DataError: where a part would have no image.
    """
    if not 1 <= splits <= len(probabilities):
        raise DataError(f"{len(probabilities)} image(s) cannot be divided into {splits} parts; give fewer splits")
    return float(np.mean([_score(probabilities[part::splits].astype(np.float64)) for part in range(splits)]))


def _score(probabilities: np.ndarray) -> float:
    marginal = probabilities.mean(axis=0)
    ratio = np.divide(probabilities, marginal, out=np.ones_like(probabilities), where=probabilities > 0)
    return float(np.exp((probabilities * np.log(ratio)).sum(axis=1).mean()))
