"""From an attack's scores to its figures: attack, control, their difference with its error, by image and by patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import stdtrit

from pipeline.measures.classification import weighted_auroc
from pipeline.measures.membership import (
    advantage,
    by_patient,
    enough_for,
    matched_weights,
    standardised,
    standing_out,
    standing_out_p,
    tpr_at_fpr,
)
from pipeline.measures.resampling import patient_weights

BOOTSTRAP, HALVINGS = 500, 50
FPRS = (0.01, 0.001)
_Rate = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rate:
    """One rate of an attack.

    Attributes:
        unit: `image` or `patient`.
        value: of all members against all non-members.
        control, control_low, control_high: of halves of members against the other halves, and of non-members likewise:
            mean, and 2.5 and 97.5 % of the halvings.
        difference: half the members against half the non-members, less the control: as many cases on either side.
        error, freedom: its standard error by a bootstrap of patients, and the degrees of freedom.
        refused: why there is none, where there are too few non-members.
    """

    name: str
    unit: str
    value: float | None = None
    control: float | None = None
    control_low: float | None = None
    control_high: float | None = None
    difference: float | None = None
    error: float = 0.0
    freedom: float = 1.0
    refused: str = ""

    def interval(self, alpha: float) -> tuple[float, float]:
        """Two-sided t interval of the difference: each of its ends is passed by chance in half of `alpha`."""
        assert self.difference is not None, self.refused
        half = float(stdtrit(self.freedom, 1 - alpha / 2)) * self.error
        return self.difference - half, self.difference + half


@dataclass(frozen=True)
class Outcome:
    """All figures of an attack.

    Attributes:
        rates: by image, where some patient has several, and by patient.
        patients, images: numbers of members and of non-members.
        worst, worst_control: the highest score of a member and of a non-member patient, in spreads of their class.
        standing_out: member patients who score higher than every non-member patient.
        standing_out_p: chance of so many or more where membership means nothing.
    """

    rates: tuple[Rate, ...]
    patients: tuple[int, int]
    images: tuple[int, int]
    worst: float
    worst_control: float
    standing_out: int
    standing_out_p: float

    def rate(self, name: str, unit: str) -> Rate:
        return next(one for one in self.rates if (one.name, one.unit) == (name, unit))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Outcome:
        pairs = {name: (int(fields[name][0]), int(fields[name][1])) for name in ("patients", "images")}
        return cls(**(fields | pairs | {"rates": tuple(Rate(**one) for one in fields["rates"])}))


def outcome_of(
    score: np.ndarray,
    member: np.ndarray,
    label: np.ndarray,
    patient: np.ndarray,
    random: np.random.Generator,
    only: str = "",
) -> Outcome:
    """Judge scores [N], large = looks like a member.

    Scores are brought to one scale within each class, and non-members count by the members' shares of classes. A
    patient's score is the largest of its images. Images with a score of NaN were not tried, and do not count.

    Args:
        member: [N] bool; label: [N] class names; patient: [N] numbers, none of which is on both sides.
        only: the one rate that is wanted; empty = all.
    """
    tried = np.isfinite(score)
    score, member, label, patient = (one[tried] for one in (score, member, label, patient))
    label = np.unique(label, return_inverse=True)[1]
    score = standardised(score, label)
    images = _Cases(score, member, label, patient)
    highest, joined, most = by_patient(score, member, label, patient)
    patients = _Cases(highest, joined, most, np.arange(len(highest)))
    rates = patients.rates("patient", random, only)
    if len(score) > len(highest):
        rates = images.rates("image", random, only) + rates
    return Outcome(
        rates=tuple(rates),
        patients=(int(joined.sum()), int((~joined).sum())),
        images=(int(member.sum()), int((~member).sum())),
        worst=float(highest[joined].max()),
        worst_control=float(highest[~joined].max()),
        standing_out=standing_out(highest, joined),
        standing_out_p=standing_out_p(highest, joined, most, random),
    )


def separation_of(
    score: np.ndarray, member: np.ndarray, label: np.ndarray, patient: np.ndarray, random: np.random.Generator
) -> Rate:
    """The AUROC by image alone; arguments as of `outcome_of`."""
    label = np.unique(label, return_inverse=True)[1]
    return _Cases(standardised(score, label), member, label, patient).rates("image", random, only="auroc")[0]


@dataclass(frozen=True)
class _Cases:
    """Images, or patients; `label` is a number for each class."""

    score: np.ndarray
    member: np.ndarray
    label: np.ndarray
    patient: np.ndarray

    def rates(self, unit: str, random: np.random.Generator, only: str = "") -> list[Rate]:
        matched = matched_weights(self.member, self.label)
        drawn = matched * patient_weights(self.patient, BOOTSTRAP, random, self._strata)
        halves = [self._half(random) for _ in range(HALVINGS)]
        freedom = float(min(len(np.unique(self.patient[side])) for side in (self.member, ~self.member)) - 1)
        return [
            Rate(name, unit, refused=refused) if refused else self._rate(name, unit, rate, drawn, halves, freedom)
            for name, (rate, refused) in self._asked().items()
            if only in ("", name)
        ]

    def _asked(self) -> dict[str, tuple[_Rate, str]]:
        """Rates by name, with the reason where one must not be given."""
        found: dict[str, tuple[_Rate, str]] = {"auroc": (weighted_auroc, ""), "advantage": (advantage, "")}
        unseen = int((~self.member).sum())
        for fpr in FPRS:
            few = f"{unseen} unseen, and {1 / fpr:.0f} are needed for one false positive in as many"
            refused = "" if enough_for(fpr, unseen) else few
            found[f"tpr_at_fpr_{fpr:g}"] = partial(tpr_at_fpr, fpr=fpr), refused
        return found

    def _rate(
        self, name: str, unit: str, rate: _Rate, drawn: np.ndarray, halves: list[np.ndarray], freedom: float
    ) -> Rate:
        value = float(rate(self.score, self.member, matched_weights(self.member, self.label)[None])[0])
        attack, control = [], []
        for half in halves:
            attack += [self._between(rate, half == self.member), self._between(rate, half != self.member)]
            control += [self._between(rate, side, half) for side in (self.member, ~self.member)]
        low, high = np.nanquantile(control, (0.025, 0.975))
        mean = float(np.nanmean(control))
        error = float(np.nanstd(rate(self.score, self.member, drawn), ddof=1))
        difference = float(np.nanmean(attack)) - mean
        return Rate(name, unit, value, mean, float(low), float(high), difference, error, freedom)

    def _between(self, rate: _Rate, among: np.ndarray, positive: np.ndarray | None = None) -> float:
        """The rate among some cases; `positive` [n] takes the place of membership."""
        side = (self.member if positive is None else positive)[among]
        weights = matched_weights(side, self.label[among])
        return float(rate(self.score[among], side, weights[None])[0]) if weights.any() else np.nan

    @property
    def _strata(self) -> np.ndarray:
        """A number [n] for each class and side."""
        return 2 * self.label + self.member

    def _half(self, random: np.random.Generator) -> np.ndarray:
        """Half of the patients of each side and class, [n] bool."""
        names, first, index = np.unique(self.patient, return_index=True, return_inverse=True)
        chosen = np.zeros(len(names), dtype=bool)
        strata = self._strata[first]
        for stratum in np.unique(strata):
            own = random.permutation(np.flatnonzero(strata == stratum))
            chosen[own[: (len(own) + int(random.integers(2))) // 2]] = True
        return chosen[index]
