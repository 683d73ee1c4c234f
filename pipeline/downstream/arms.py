"""What each arm trains on."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.arms import REFERENCE_ARM, arm_facts, arm_ratio
from pipeline.core.errors import ConfigError


@dataclass(frozen=True)
class Arm:
    """An arm of the comparison.

    Attributes:
        real, synthetic: parts of a batch (0 = none).
        classical: whether the classical transforms are applied, to real and synthetic images alike.
    """

    name: str
    real: float
    synthetic: float
    classical: bool


def parse_arm(name: str) -> Arm:
    """Read an arm's name, such as `real+classical+synthetic@1` (ratio synthetic : real in a batch)."""
    if arm_facts(name) is None:
        raise ConfigError(f"arms: there is no arm {name}.")
    if name == "synthetic+classical":
        return Arm(name, real=0.0, synthetic=1.0, classical=True)
    return Arm(name, real=1.0, synthetic=arm_ratio(name), classical="classical" in name)


def is_augmented(name: str) -> bool:
    """True for arms that add synthetic images to real ones: the candidates for `helps`."""
    return name.startswith(f"{REFERENCE_ARM}+synthetic@")
