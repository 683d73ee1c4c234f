"""Did a translator between sites work? The site has to go, and the class to stay.

Both are read from the rows of the stage `translation`, whose judges have not seen the patients, as places on a way: of
the site from where the sources are (0) to where the target's real images are (1), and of the class from what the
classifier says of the sources (0) to chance (1); where it is more often wrong about the target's real images, from
those, since no translation can be told better than what it is to become. Directions count the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.metrics import MetricRow

HALF = 0.5
"""Of the way: a site that goes less than so far has stayed, a class that goes further is lost."""
TOLD = 0.25
"""Part of the whole scale that a way must be long, or its judge tells too little to judge by."""
LEAST = 10
"""Translations a direction, at least."""


@dataclass(frozen=True)
class Translated:
    """Means over the directions.

    Attributes:
        stayed: what is left of the way of the site: 0 = called the target as often as its real images, 1 = no more
            often than the sources; None = sites are hardly told apart.
        lost: how far the class went: 0 = told as in the sources or the target's real images, 1 = by chance; None =
            classes are hardly told in one of them.
        number: of translations, in the direction that has the fewest.
    """

    stayed: float | None
    lost: float | None
    number: int

    @classmethod
    def of(cls, rows: Sequence[MetricRow]) -> Translated:
        """Of a generator's rows of the stage `translation`."""
        chance = 1 - 1 / len({row.label for row in rows})
        stayed, lost, numbers = [], [], []
        for direction in dict.fromkeys(row.subgroup for row in rows):
            own = [row for row in rows if row.subgroup == direction]
            made, source, real = (_share(own, f"called_target{end}") for end in ("", "_source", "_real"))
            stayed.append((real - made) / (real - source) if real - source >= TOLD else np.nan)
            wrong = _share(own, "wrong_calls")
            before = max(_share(own, "wrong_calls_source"), _wrong_about_real(own))
            told = chance > 0 and chance - before >= TOLD * chance  # of one class nothing is told
            lost.append((wrong - before) / (chance - before) if told else np.nan)
            numbers.append(sum(int(row.n_images or 0) for row in own if row.metric == "called_target"))
        return cls(_mean(stayed), _mean(lost), min(numbers))

    @property
    def failure(self) -> str:
        """Why it failed, or nothing."""
        if self.number < LEAST:
            return ""
        if self.stayed is not None and has_stayed(self.stayed):
            return (
                f"its translations are hardly called another site ({100 * (1 - self.stayed):.0f} % of the way from "
                f"their sources to the target's real images, and at least {100 * HALF:.0f} % is asked for)"
            )
        if self.lost is not None and self.lost > HALF:
            return (
                f"its translations lose the class ({100 * self.lost:.0f} % of the way from what a classifier says of "
                f"their sources to chance, and at most {100 * HALF:.0f} % is allowed)"
            )
        return ""

    @property
    def unjudged(self) -> str:
        """Why it could not be judged, or nothing."""
        if self.number < LEAST:
            return f"a direction has {self.number} translations, and below {LEAST} their figures are chance"
        if self.stayed is None:
            return "a classifier that never saw the patients hardly tells the sites apart, translated or not"
        if self.lost is None:
            return "a classifier that never saw the patients hardly tells the classes apart, translated or not"
        return ""


def has_stayed(left: float | None) -> bool:
    """Whether so much of the way of the site is left that the translator failed."""
    return left is not None and left > HALF


def _mean(ways: Sequence[float]) -> float | None:
    """None where one is not known."""
    return None if np.isnan(ways).any() else float(np.mean(ways))


def _wrong_about_real(rows: Sequence[MetricRow]) -> float:
    """Wrong calls of the target's real images, classes as frequent as among the translations; of a class that has no
    real image there, of the sources."""
    known = {(row.metric, row.label): row for row in rows}
    counted = [row for row in rows if row.metric == "wrong_calls"]
    values = []
    for row in counted:
        real = known.get(("wrong_calls_real", row.label))
        told = real if real is not None and real.value else known["wrong_calls_source", row.label]
        values.append(float(told.value))
    return float(np.average(values, weights=[int(row.n_images or 0) for row in counted]))


def _share(rows: Sequence[MetricRow], name: str) -> float:
    """The share of images of all classes together."""
    known = [(float(row.value), int(row.n_images or 0)) for row in rows if row.metric == name and row.value]
    number = sum(count for _, count in known)
    return sum(value * count for value, count in known if count) / number if number else float("nan")
