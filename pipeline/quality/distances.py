"""The figures of one set of images against a reference set, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.measures.coverage import prdc
from pipeline.measures.frechet import fid
from pipeline.measures.histograms import BINS, jensen_shannon, wasserstein_1
from pipeline.measures.inception_score import inception_score
from pipeline.measures.kernel_distance import kid
from pipeline.measures.radiomics import radiomics_distance
from pipeline.measures.resampling import wilson_interval
from pipeline.measures.spectra import spectrum_distance
from pipeline.measures.subsampling import margins
from pipeline.quality.describe import Described, drawn

BOUNDS = {
    "fid": (0.0, math.inf),
    "precision": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "density": (0.0, math.inf),
    "coverage": (0.0, 1.0),
    "nearest_real_distance": (0.0, math.inf),
    "inception_score": (1.0, math.inf),
    "histogram_w1": (0.0, math.inf),
    "histogram_js": (0.0, 1.0),
    "spectrum_distance": (0.0, math.inf),
    "radiomics_fid": (0.0, math.inf),
}
"""What `compare` gives, and between which ends each figure lies."""
OF_FEATURES = ("fid", "kid", "precision", "recall", "density", "coverage", "nearest_real_distance")
"""The figures that an extractor's name belongs to."""
_PART = 2000
"""Images of the larger set in a part that intervals are made from, at most."""
_SUBSET = 5000
"""Images of a set that KID pairs with each other, at most."""


@dataclass(frozen=True)
class Rules:
    """How figures are made.

    Attributes:
        grey: width of the window in the images' unit.
        neighbours, max_images, draws: as in the configuration.
    """

    grey: float
    neighbours: int
    max_images: int
    draws: int
    alpha: float
    seed: int
    device: str


@dataclass(frozen=True)
class Figure:
    """A figure with its interval; NaN where it could not be made."""

    value: float
    low: float = math.nan
    high: float = math.nan


def compare(real: Described, other: Described, rules: Rules) -> dict[str, float]:
    """Every figure in `BOUNDS` of `other` against `real`; NaN where there are too few images."""
    found = dict.fromkeys(BOUNDS, math.nan)
    if not len(real) or not len(other):
        return found
    levels = real.histogram.mean(axis=0, dtype=np.float64), other.histogram.mean(axis=0, dtype=np.float64)
    found["histogram_w1"] = wasserstein_1(*levels, rules.grey / BINS)
    found["histogram_js"] = jensen_shannon(*levels)
    found["spectrum_distance"] = spectrum_distance(real.spectrum, other.spectrum)
    found["inception_score"] = inception_score(other.probability)
    nearest = other.nearest[np.isfinite(other.nearest)]
    if len(nearest):
        found["nearest_real_distance"] = float(np.median(nearest))
    if min(len(real), len(other)) >= 2:
        found["fid"] = fid(real.features, other.features)
        found["radiomics_fid"] = radiomics_distance(real.radiomics, other.radiomics)
    if min(len(real), len(other)) > rules.neighbours:
        one, two = (each.features[drawn(len(each), rules.max_images, rules.seed)] for each in (real, other))
        near = prdc(one, two, rules.neighbours, rules.device)
        found |= {name: getattr(near, name) for name in ("precision", "recall", "density", "coverage")}
    return found


def figures(real: Described, other: Described, rules: Rules) -> dict[str, Figure]:
    """The figures of `compare` and KID, with intervals from random parts of both sets.

    KID's is by the jackknife. Another figure that is the same in every part gets none. All take images to be
    independent.
    """
    values = compare(real, other, rules)
    sizes = len(real), len(other)
    widths = np.full(len(values), np.nan)
    if min(sizes) >= 4:
        widths = margins(
            lambda one, two: list(compare(real.at(one), other.at(two), rules).values()),
            sizes, draws=rules.draws, seed=rules.seed, alpha=rules.alpha, most=_PART, strata=(real.label, other.label),
        )  # fmt: skip
    found = {
        name: Figure(value, max(value - width, BOUNDS[name][0]), min(value + width, BOUNDS[name][1]))
        if width > 0
        else Figure(value)
        for (name, value), width in zip(values.items(), widths, strict=True)
    }
    return found | {"kid": _kid(real, other, rules)}


def matched(
    real: Described, synthetic: Described, like: Described, rules: Rules, repeats: int
) -> tuple[dict[str, float], int]:
    """Means of `compare` over random draws of as many synthetic images of each class as there are in `like`.

    Returns:
        The means, and how many images a draw has.
    """
    random = np.random.default_rng(rules.seed)
    wanted = [
        (np.flatnonzero(synthetic.label == name), int(np.sum(like.label == name))) for name in np.unique(like.label)
    ]
    draws = [np.concatenate([random.permutation(rows)[:count] for rows, count in wanted]) for _ in range(repeats)]
    found = [compare(real, synthetic.at(rows), rules) for rows in draws]
    return {name: float(np.mean([one[name] for one in found])) for name in BOUNDS}, len(draws[0])


def share(value: float, number: int, alpha: float) -> Figure:
    """A share of `number` images, with Wilson's interval."""
    if not math.isfinite(value):
        return Figure(value)
    return Figure(value, *wilson_interval(round(value * number), number, alpha))


def _kid(real: Described, other: Described, rules: Rules) -> Figure:
    if min(len(real), len(other)) < 3:
        return Figure(math.nan)
    return Figure(*kid(real.features, other.features, _SUBSET, rules.seed, rules.alpha, rules.device))
