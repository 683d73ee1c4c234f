"""The adversarial objectives: one term each for the discriminator and the generator."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.adversarial import terms
from pipeline.adversarial.recipe import Weighted


@dataclass(frozen=True)
class Objective:
    """What a discriminator and a generator play for."""

    discriminator: Weighted
    generator: Weighted

    def weighted(self, discriminator: float, generator: float) -> Objective:
        return Objective(replace(self.discriminator, weight=discriminator), replace(self.generator, weight=generator))


LOGISTIC = Objective(
    Weighted("logistic", terms.logistic_discriminator), Weighted("logistic", terms.non_saturating_generator)
)
NON_SATURATING = replace(LOGISTIC, generator=Weighted("non_saturating", terms.non_saturating_generator))
"""The same as LOGISTIC, under another name in the statistics."""
HINGE = Objective(Weighted("hinge", terms.hinge_discriminator), Weighted("hinge", terms.hinge_generator))
WASSERSTEIN = Objective(
    Weighted("wasserstein", terms.wasserstein_discriminator), Weighted("wasserstein", terms.wasserstein_generator)
)
LEAST_SQUARES = Objective(
    Weighted("least_squares", terms.least_squares_discriminator),
    Weighted("least_squares", terms.least_squares_generator),
)
