"""`privacy:` — who attacks the generator that may be released, and what the gate lets pass.

An attack is a file of `pipeline.privacy.attacks`, found by its name (`pipeline.config.by_name`): `calibrated-distance`
is the module `calibrated_distance`, whose `ATTACK` says the rest.
"""

from __future__ import annotations

from types import ModuleType
from typing import Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.by_name import module_named, names_in, or_nearest
from pipeline.config.section import Section

PACKAGE = "pipeline.privacy.attacks"
SHADOWED = ("lira",)
"""Attacks that need shadow generators: a plan is made without importing any of them."""


def attack_names() -> tuple[str, ...]:
    """The names of all attacks, in the alphabet's order; none is imported."""
    return names_in(PACKAGE)


def attack_module(name: str) -> ModuleType:
    """The module that holds the attack called `name`.

    Raises:
        KeyError: there is no such attack.
    """
    return module_named(PACKAGE, name)


class PrivacyConfig(Section):
    """The audit of the generator that `release:` names; docs/privacy.md reasons the defaults.

    Attributes:
        attacks: names as `radaug attacks` prints them; none = no audit, and the run ends as `not_audited`.
        advantage: the membership advantage that is tolerated, from 0 to 1: at 0.2 who guesses with even odds whether a
            patient was in the training is right in 60 % of the cases at most. The audit must exclude more.
        alpha: chance of refusing a generator that remembers nobody; the attacks share it.
        fewest: patients whom the generator never saw, and training patients; with fewer there is no audit.
        synthetic_images: that are looked at, at most.
        real_images: of training patients, and of patients who were never seen, that are attacked, at most of each.
        sensitive: columns of the source's table, such as sex and age, that `attribute` guesses.
        shadows: generators that are trained for `lira`, each as the run's own; they share the patients two by two.
        inversion_images, inversion_steps: of `latent-inversion`: images of either side, and steps for each.
    """

    attacks: tuple[str, ...] = ("distance", "calibrated-distance", "match")
    advantage: float = Field(0.2, gt=0, lt=1)
    alpha: float = Field(0.02, gt=0, lt=0.5)
    fewest: int = Field(20, ge=10)
    synthetic_images: int = Field(500, ge=20)
    real_images: int = Field(1000, ge=20)
    sensitive: tuple[str, ...] = ()
    shadows: int = Field(8, ge=4, multiple_of=2)
    inversion_images: int = Field(64, ge=20)
    inversion_steps: int = Field(100, ge=1)

    @property
    def trained_shadows(self) -> int:
        """How many shadow generators the attacks need."""
        return self.shadows if set(self.attacks) & set(SHADOWED) else 0

    @field_validator("attacks")
    @classmethod
    def _attacks_are_known(cls, attacks: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(attacks)) != len(attacks):
            raise ValueError("an attack is named twice")
        for one in attacks:
            if one not in attack_names():
                known, nearest = ", ".join(attack_names()), or_nearest(one, attack_names())
                raise ValueError(f"there is no attack {one}; there are {known}{nearest}")
        return attacks

    @model_validator(mode="after")
    def _there_is_something_to_guess(self) -> Self:
        if "attribute" in self.attacks and not self.sensitive:
            raise ValueError("the attack attribute guesses the columns that sensitive names, and it names none")
        return self
