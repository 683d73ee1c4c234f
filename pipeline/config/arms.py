"""The arms of the comparison by name: what each is, how it is trained, and what it must be compared with.

An arm is one entry of `ARMS`, in `real_arms.py` or `synthetic_arms.py`. Its regimen, its cost, what is looked at beside
its predictions and the table of docs/add-an-arm.md follow from it; that page adds one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.config.arm_facts import (
    REFERENCE_ARM,
    ArmFacts,
    LinearModel,
    Loss,
    Part,
    Representation,
    Stretch,
    Trunk,
)
from pipeline.config.by_name import nearest
from pipeline.config.real_arms import REAL_ARMS, representation_arm
from pipeline.config.synthetic_arms import SYNTHETIC_ARMS
from pipeline.core.errors import ConfigError

__all__ = [
    "ARMS", "REFERENCE_ARM", "ArmFacts", "LinearModel", "Loss", "Part", "Representation", "Stretch", "Trunk",
    "arm_facts", "arm_ratio", "classifier_fits", "is_candidate", "known_arm", "nearest_arm", "part_name",
    "representation_arm", "representation_of", "uses_synthetic",
]  # fmt: skip

_RATIO = re.compile(r"(?P<stem>.+)@(?P<ratio>\d+(\.\d+)?)")

ARMS: dict[str, ArmFacts] = REAL_ARMS | SYNTHETIC_ARMS
"""Names without @RATIO, in the order of a report."""


def classifier_fits(arms: Sequence[str], seeds: int, *, generator: bool) -> tuple[tuple[str, int], ...]:
    """Arm and seed of every classifier of one fold: those without a generator, or those of one generator.

    The second have the reference arm's first one among them, for the reverse check.
    """
    own = [(arm, seed) for arm in arms if uses_synthetic(arm) == generator for seed in range(seeds)]
    return (*own, (REFERENCE_ARM, 0)) if generator else tuple(own)


def part_name(arm: str, seed: int) -> str:
    """`ARM seed S`: what one classifier is called among the parts of its stage."""
    return f"{arm} seed {seed}"


def arm_facts(name: str) -> ArmFacts | None:
    """Facts of the arm called `name`, such as `real+classical+synthetic@1`; None where there is no such arm."""
    match = _RATIO.fullmatch(name)
    facts = ARMS.get(match["stem"] if match else name)
    return facts if facts is not None and facts.ratio == (match is not None) else None


def nearest_arm(name: str) -> str:
    """What an error about an unknown arm says next: the nearest right one, with its ratio, if one is near."""
    stem, _, ratio = name.partition("@")
    meant = nearest(stem, list(ARMS))
    if not meant:
        return ""
    return f" (did you mean {meant}{f'@{ratio or 1}' if ARMS[meant].ratio else ''}?)"


def known_arm(name: str) -> ArmFacts:
    """Facts of the arm called `name`.

    Raises:
        ConfigError: there is no such arm.
    """
    facts = arm_facts(name)
    if facts is None:
        raise ConfigError(f"arms: there is no arm {name}{nearest_arm(name)}.")
    return facts


def representation_of(name: str) -> Representation | None:
    """The fixed representation that the arm called `name` works on, if it is such an arm."""
    facts = arm_facts(name)
    return facts.representation if facts else None


def arm_ratio(name: str) -> float:
    """Synthetic images for each real one in a batch, as the name says; 0 where it says nothing."""
    match = _RATIO.fullmatch(name)
    return float(match["ratio"]) if match else 0.0


def uses_synthetic(name: str) -> bool:
    """True for arms that need a trained GAN."""
    facts = arm_facts(name)
    return facts is not None and facts.generator


def is_candidate(name: str) -> bool:
    """True for arms that may be said to help."""
    facts = arm_facts(name)
    return facts is not None and facts.candidate
