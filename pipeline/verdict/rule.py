"""The decision rule, and its reasons in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.arms import REFERENCE_ARM, arm_facts
from pipeline.core.decisions import Decision
from pipeline.measures.resampling import Interval
from pipeline.verdict.comparison import Mean

_EQUIVALENCE = 0.10
"""Two one-sided tests at 5 % are a 90 % interval (Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987))."""


@dataclass(frozen=True)
class Verdict:
    decision: str
    reasons: tuple[str, ...]
    evidence: dict[str, Any]

    def as_json(self) -> Decision:
        return {"decision": self.decision, "reasons": list(self.reasons), "evidence": self.evidence}


@dataclass(frozen=True)
class Compared:
    """One arm against one reference.

    Attributes:
        p_holm: adjusted over the planned comparisons; None for one that was not planned.
        repeats: fits a fold of the arm that has fewer.
    """

    arm: str
    reference: str
    difference: Mean
    p: float
    p_holm: float | None
    alpha: float
    margin: float
    endpoint: str
    repeats: int

    @property
    def single(self) -> bool:
        """Whether an arm has one fit a fold, whose scatter is unknown, so that no interval can cover it."""
        return self.repeats < 2 and not self.difference.paired

    @property
    def bounds(self) -> Interval:
        """The interval of the difference; without ends where none can be given."""
        return Interval(self.difference.value, None, None) if self.single else self.difference.interval(self.alpha)

    @property
    def no_interval(self) -> str:
        """Why there is none, in a sentence; empty where there is one."""
        if self.bounds.low is not None:
            return ""
        unknown = "One classifier an arm: their scatter is unknown, and no interval is given."
        return self.difference.unbounded_because(self.alpha) or unknown

    @property
    def decision(self) -> str:
        """By the interval of this pair alone."""
        bounds = self.bounds
        if bounds.low is None or bounds.high is None:
            return "inconclusive"
        significant = self.p_holm is None or self.p_holm < self.alpha
        bca = self.difference.bca
        if bounds.low > 0:
            return "helps" if significant and bca is not None and bca[0] > 0 else "inconclusive"
        if bounds.high < 0:
            return "harms" if significant else "inconclusive"
        return "no_benefit" if bounds.high < self.margin or self.equivalent else "inconclusive"

    @property
    def equivalent(self) -> bool:
        bounds = self.difference.interval(_EQUIVALENCE)
        return not self.single and (
            bounds.low is not None
            and bounds.high is not None
            and -self.margin < bounds.low <= bounds.high < self.margin
        )

    @property
    def points(self) -> str:
        """Such as `+1.2 points of auroc`."""
        return f"{100 * self.difference.value:+.1f} points of {self.endpoint}"

    @property
    def span(self) -> str:
        bounds = self.bounds
        if bounds.low is None or bounds.high is None:
            return "no interval"
        return f"{100 * (1 - self.alpha):.0f} % interval [{100 * bounds.low:+.1f}, {100 * bounds.high:+.1f}]"

    def as_json(self) -> dict[str, Any]:
        bounds, given = self.bounds, self.difference.estimate is not None and not self.single
        bca = (self.difference.bca if given else None) or (None, None)
        return {
            "arm": self.arm, "reference": self.reference, "endpoint": self.endpoint,
            "difference": self.difference.value, "ci_low": bounds.low, "ci_high": bounds.high,
            "no_interval": self.no_interval,
            "bca_low": bca[0], "bca_high": bca[1], "p": self.p if given else None,
            "p_holm": self.p_holm, "equivalent": self.equivalent, "margin": self.margin, "alpha": self.alpha,
            "by_fold": self.difference.by_fold, "paired_on_draws": self.difference.paired, "decision": self.decision,
        }  # fmt: skip


def judge(compared: Sequence[Compared], missing: Sequence[str], evidence: dict[str, Any]) -> Verdict:
    """The verdict of the primary comparison, which is the first, in the light of the same arm's other controls."""
    primary = compared[0]
    reasons = [_seen(primary)]
    decision, why = primary.decision, _why(primary)
    reasons.append(why)
    reasons += _could_be_shown(primary, evidence["smallest_shown"])
    controls = [one for one in compared[1:] if one.arm == primary.arm]
    unbeaten = [one for one in controls if one.decision != "helps"]
    if decision == "helps" and missing:
        decision = "inconclusive"
        reasons.append(
            f"The arms {', '.join(missing)} are missing: they have the same information without a GAN, and without "
            "them a gain cannot be laid to it."
        )
    elif decision == "helps" and unbeaten:
        decision = "no_benefit" if any(one.decision in ("no_benefit", "harms") for one in unbeaten) else "inconclusive"
        reasons += [
            f"It does not beat {one.reference}, which needs no GAN: {one.points}, {one.span}." for one in unbeaten
        ]
    reasons += _remarks(compared, evidence)
    return Verdict(decision, tuple(reasons), evidence)


def _seen(one: Compared) -> str:
    if one.bounds.low is None:
        return f"The difference is {one.points}, without an interval."
    over = "patients and labelled draws" if one.difference.paired else "patients and fits"
    return f"The difference is {one.points}, {one.span}, over {over}."


def _why(one: Compared) -> str:
    bounds = one.bounds
    if bounds.low is None or bounds.high is None:
        return one.no_interval
    margin = f"{100 * one.margin:.1f} points"
    if bounds.low > 0 and one.decision != "helps":
        return (
            "The interval lies above 0, but not after all planned comparisons and both kinds of interval are counted."
        )
    if one.decision == "helps":
        least = "" if bounds.low >= one.margin else f" The gain may be smaller than the margin of {margin}."
        return f"The interval lies above 0.{least}"
    if one.decision == "harms":
        return "The interval lies below 0."
    if one.decision == "no_benefit":
        return f"The interval includes 0 and excludes a gain of {margin}."
    return f"The interval includes both 0 and a gain of {margin}: more patients are needed."


def _could_be_shown(one: Compared, smallest: dict[str, float | None]) -> list[str]:
    """The smallest difference that the data could show, beside what was told before the run; where none was shown.

    A firm `no_benefit` hangs on the interval: whatever the power was, an interval that excludes the margin comes in
    no more than alpha / 2 of runs (alpha, for equivalence) where the gain is the margin (Hoenig & Heisey, The American
    Statistician 55 (2001)).
    """
    measured, low, high = (smallest[name] for name in ("measured", "planned_low", "planned_high"))
    if one.decision not in ("no_benefit", "inconclusive") or measured is None:
        return []
    said = f"With this error, a true difference of {100 * measured:.1f} points would be shown in 80 % of runs"
    if low is None or high is None:
        return [f"{said}."]
    said += (
        f"; before the run, {100 * low:.1f} to {100 * high:.1f} points could be said (radaug validate), since how "
        "alike two arms err on the same patients shows only in it."
    )
    if one.decision == "no_benefit":
        said += (
            f" The interval decides, not these: were the true gain {100 * one.margin:.1f} points, it would exclude "
            f"them in about {100 * one.alpha:g} % of runs at most."
        )
    return [said]


def _remarks(compared: Sequence[Compared], evidence: dict[str, Any]) -> list[str]:
    """What a reader must know beside the decision."""
    found = []
    if evidence["n_gan_seeds"] < 2 and evidence["n_folds"] < 2:
        found.append("One GAN was trained: this holds for this generator only.")
    elif evidence["n_gan_seeds"] < 2 and not compared[0].difference.paired:
        found.append("One GAN was trained a fold: this holds for these generators only.")
    primary = compared[0]
    for one in compared[1:]:
        if one.arm != primary.arm and one.reference == REFERENCE_ARM:
            planned = "planned" if one.p_holm is not None else "not planned, so exploratory"
            found.append(f"{one.arm} ({planned}): {one.points} over {one.reference}, {one.span}.")
        elif one.reference != REFERENCE_ARM and one.decision == "harms":
            facts = arm_facts(one.reference)
            advice = "Use your archive, not the GAN" if facts and facts.pool else "The GAN is not needed"
            found.append(f"{advice}: {one.reference} beats {one.arm} ({one.points}, {one.span}).")
    return found
