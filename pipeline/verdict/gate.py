"""The gate before the utility verdict: a generator that failed says nothing about GAN augmentation.

A generator's place is where its images lie between real validation images (0) and images that show nothing (1), by KID
from the training images: the distance that does not move with the number of images, so that few of them will do.
docs/verdict.md has both error rates of the limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd

from pipeline.core.guard import TRANSLATION
from pipeline.core.metrics import MetricRow
from pipeline.verdict.rule import Verdict
from pipeline.verdict.translator_gate import Translated, has_stayed

PLACE = 0.5
"""Nearer to blank or shuffled images than to real ones."""
REPEATS = 0.5
"""Half of the images nearly equal another one: the collapse watch's limit."""
LEAST_VALIDATION, LEAST_OF_CLASS = 10, 5
"""Validation images without which a generator, and a class of its images, cannot be judged."""
FLOOR_SHARE = 0.25
"""A place is known where the floor's interval reaches no further than so much of the way to either side."""
_SEE_MORE = (
    " If the sites differ in anatomy, let its discriminators see more of an image at once: gan.patch_halvings. If a "
    "cell of site and class has few images, try gan.semantic: 0, whose classifier may go by the site."
)
PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not judged"
UNSEEN = "The generators were not looked at: predictions alone do not say whether the GANs had failed."
_ALL = "all"
_NEEDED = ("kid", "kid_floor", "kid_blank", "kid_shuffled")


@dataclass(frozen=True)
class Look:
    """What the gate saw of one generator.

    Attributes:
        state: passed, failed or not judged.
        why: in words, why it failed or could not be judged; of the worst group of images.
        label: the class of that group, or all.
        place: where its images lie between real validation images (0) and blank or shuffled ones (1).
        kid, floor, ceiling: of that group, real validation images, and the nearer of blank and shuffled ones.
        repeats: share of images that nearly equal another one, of the class where it is highest.
        validation: number of validation images.
        site_left, class_lost: of a translator between sites; see `translator_gate`.
    """

    fold: str
    gan_seed: str
    state: str
    why: str = ""
    label: str = ""
    place: float | None = None
    kid: float | None = None
    floor: float | None = None
    ceiling: float | None = None
    repeats: float | None = None
    validation: int = 0
    site_left: float | None = None
    class_lost: float | None = None


def look_at(figures: Iterable[MetricRow], fold: str, gan_seed: str) -> Look:
    """Judge one generator by its rows of the stage `quality`, a translator between sites by those of `translation`; a
    generator without rows was not looked at."""
    figures = list(figures)
    translations = [row for row in figures if (row.stage, row.fold, row.gan_seed) == (TRANSLATION, fold, gan_seed)]
    if translations:
        return _look_at_translator(Translated.of(translations), fold, gan_seed)
    rows = [row for row in figures if (row.stage, row.fold, row.gan_seed) == ("quality", fold, gan_seed)]
    if not rows:
        return Look(fold, gan_seed, NOT_JUDGED, "its images were not measured")
    labels = dict.fromkeys(row.label for row in rows)
    groups = {label: _Group.of(label, [row for row in rows if row.label == label]) for label in labels}
    whole = groups.get(_ALL)
    if whole is None or not {row.metric for row in rows} & set(_NEEDED):
        return Look(fold, gan_seed, NOT_JUDGED, rows[0].detail)
    judged = [group for group in groups.values() if group.place is not None and group.enough]
    repeats = max((group.repeats for group in groups.values() if group.repeats is not None), default=None)
    worst = max(judged, key=lambda group: group.place or 0.0, default=whole)
    seen = Look(
        fold, gan_seed, PASSED, "", worst.label, worst.place, worst.kid, worst.floor, worst.ceiling, repeats,
        whole.validation,
    )  # fmt: skip
    why = _failure(worst if judged else None, groups.values(), repeats)
    if why:
        return replace(seen, state=FAILED, why=why)
    if whole not in judged:
        return replace(seen, state=NOT_JUDGED, why=_unjudged(whole))
    return seen


def _look_at_translator(found: Translated, fold: str, gan_seed: str) -> Look:
    state = FAILED if found.failure else NOT_JUDGED if found.unjudged else PASSED
    why = found.failure or found.unjudged
    return Look(fold, gan_seed, state, why, _ALL, site_left=found.stayed, class_lost=found.lost)


def looks_of(verdict: Verdict, predictions: pd.DataFrame, metrics: Sequence[MetricRow]) -> list[Look]:
    """A look at every generator of the verdict's arm.

    Args:
        predictions: `fold` and `gan_seed` of the arm's rows name its generators.
        metrics: rows of metrics.csv, among them those of the stage `quality`.
    """
    if not verdict.evidence:
        return []
    own = predictions[predictions["arm"] == verdict.evidence["arm"]]
    pairs = own[["fold", "gan_seed"]].astype(str).drop_duplicates().sort_values(["fold", "gan_seed"])
    return [look_at(metrics, fold, gan_seed) for fold, gan_seed in pairs.itertuples(index=False)]


@dataclass(frozen=True)
class _Group:
    """The figures of all of a generator's images, or of one class; None where there is none.

    `unsure` is half the width of the floor's interval.
    """

    label: str
    kid: float | None
    floor: float | None
    ceiling: float | None
    repeats: float | None
    validation: int
    unsure: float

    @classmethod
    def of(cls, label: str, rows: Sequence[MetricRow]) -> _Group:
        values = {row.metric: float(row.value) for row in rows if row.value}
        ends = [values[name] for name in ("kid_blank", "kid_shuffled") if name in values]
        floor = next((row for row in rows if row.metric == "kid_floor"), None)
        validation = int(floor.n_images or 0) if floor else 0
        unsure = (float(floor.ci_high) - float(floor.ci_low)) / 2 if floor and floor.ci_high else 0.0
        known = (values.get("kid"), values.get("kid_floor"), min(ends, default=None), values.get("repeats"))
        return cls(label, *known, validation, unsure)

    @property
    def enough(self) -> bool:
        """Whether there are validation images enough."""
        return self.validation >= (LEAST_VALIDATION if self.label == _ALL else LEAST_OF_CLASS)

    @property
    def place(self) -> float | None:
        """None where a figure is missing, or blank images are hardly further from training images than real ones."""
        if self.kid is None or self.floor is None or self.ceiling is None:
            return None
        if self.unsure >= FLOOR_SHARE * (self.ceiling - self.floor):
            return None
        return (self.kid - self.floor) / (self.ceiling - self.floor)


def _failure(worst: _Group | None, groups: Iterable[_Group], repeats: float | None) -> str:
    """Why a generator failed, or nothing."""
    if worst is not None and worst.place is not None and worst.place > PLACE:
        kid, floor, ceiling = (f"{1000 * (value or 0):.0f}" for value in (worst.kid, worst.floor, worst.ceiling))
        return (
            f"{_images(worst.label)} lie nearer to blank or shuffled images than to real ones (KID x 1000 from "
            f"training images: {kid}; real validation images {floor}, blank or shuffled ones {ceiling}; that is "
            f"{100 * worst.place:.0f} % of the way, and at most {100 * PLACE:.0f} % is allowed)"
        )
    if repeats is not None and repeats > REPEATS:
        alike = next(group for group in groups if group.repeats == repeats)
        return (
            f"{100 * repeats:.0f} % of {_images(alike.label)} nearly equal another one, and at most "
            f"{100 * REPEATS:.0f} % is allowed: it has collapsed"
        )
    return ""


def _images(label: str) -> str:
    return "its images" if label == _ALL else f"its images of the class {label}"


def _unjudged(whole: _Group) -> str:
    if not whole.enough:
        return f"there are {whole.validation} validation images, and below {LEAST_VALIDATION} their figures are chance"
    return (
        f"by the extractor, {whole.validation} real validation images are not told from blank or shuffled ones surely "
        "enough"
    )


def gated(verdict: Verdict, looks: Sequence[Look]) -> Verdict:
    """The verdict in the light of the generators that its comparison rests on.

    Where all of them passed, decision and reasons stay as they are. Where one failed, `no_benefit` and `harms` are
    `inconclusive`, since they are of this generator and not of GAN augmentation; `helps` stays, since a gain over all
    controls needs no good images, and a reason says so. Where one could not be judged, a reason says so, the first one
    beside `no_benefit`.

    Args:
        looks: of every generator of the primary arm; none where only predictions are known.
    """
    if not verdict.evidence:
        return verdict
    failed = [look for look in looks if look.state == FAILED]
    unjudged = [look for look in looks if look.state == NOT_JUDGED]
    state = FAILED if failed else PASSED if looks and not unjudged else NOT_JUDGED
    evidence = verdict.evidence | {
        "generators": {
            "state": state, "decision_without_gate": verdict.decision, "place_limit": PLACE, "repeats_limit": REPEATS,
            "least_validation": LEAST_VALIDATION, "looks": [asdict(look) for look in looks],
        }
    }  # fmt: skip
    if state == PASSED:
        return replace(verdict, evidence=evidence)
    said = _failed_words(failed, len(looks)) if failed else _unjudged_words(unjudged, len(looks))
    if failed and verdict.decision == "helps":
        said += " The gain over every control stands all the same: look at the samples before laying it to them."
        return replace(verdict, reasons=(*verdict.reasons, said), evidence=evidence)
    if failed:
        said += ", so this says nothing about GAN augmentation."
        if any(has_stayed(look.site_left) for look in failed):
            said += _SEE_MORE
        return replace(verdict, decision="inconclusive", reasons=(said, *verdict.reasons), evidence=evidence)
    reasons = (said, *verdict.reasons) if verdict.decision == "no_benefit" else (*verdict.reasons, said)
    return replace(verdict, reasons=reasons, evidence=evidence)


def _failed_words(failed: Sequence[Look], number: int) -> str:
    worst = max(failed, key=lambda look: max(look.place or 0.0, look.site_left or 0.0, look.class_lost or 0.0))
    if number == 1:
        return f"The generator failed: {worst.why}"
    which = f"fold {worst.fold}, GAN seed {worst.gan_seed}"
    return f"{len(failed)} of {number} generators failed, the worst ({which}) since {worst.why}"


def _unjudged_words(unjudged: Sequence[Look], number: int) -> str:
    if not number:
        return UNSEEN
    who = "The generator" if number == 1 else f"{len(unjudged)} of {number} generators"
    return (
        f"{who} could not be judged: {unjudged[0].why}. Whether it works is for you to see in its samples; if it does "
        "not, this says nothing about GAN augmentation."
    )
