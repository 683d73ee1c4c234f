"""Shadow generators: trained as the one that is attacked, on random halves of its members and of unseen patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.fit import FitConfig, fit_config
from pipeline.adversarial.starting import Start
from pipeline.config.gan import WatchConfig
from pipeline.core.errors import ConfigError
from pipeline.core.seeds import derive_seed
from pipeline.data.cohort.halves import Half
from pipeline.synthesis.synthesise import SynthesiseConfig, synthesise_config

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

GAN, IMAGES = "shadow-gan-{}", "shadow-{}"
"""What an attack's inputs call the training of a shadow, and its images."""


def fit_shadow_config(experiment: Experiment, number: int, start: Start | None = None) -> FitConfig:
    """The section of one shadow of the generator that `release:` names.

    Shadows 2 i and 2 i + 1 share the patients between them, so that half of all shadows know each patient. The collapse
    watch is off, for it looks at validation images, which a shadow may have learned from.

    Raises:
        ConfigError: the family makes images from those of training patients, whom a shadow may not know.
    """
    family = FAMILIES[experiment.gan.family]
    if family.needs or experiment.gan.attributes:
        raise ConfigError(
            f"privacy.attacks: lira trains shadow generators, and gan.family: {family.name} is asked by what training "
            "images lend it (masks, source images, attributes). Leave lira out."
        )
    place = experiment.release
    side: Literal[0, 1] = 1 if number % 2 else 0
    target = fit_config(experiment, place.fold, place.gan_seed, start)
    return target.model_copy(
        update={
            "gan": target.gan.model_copy(update={"watch": WatchConfig(checks=0)}),
            "seed": derive_seed(experiment.seed, "shadow", place.fold, number),
            "half": Half(seed=derive_seed(experiment.seed, "halves", place.fold, number // 2), side=side),
        }
    )


def synthesise_shadow_config(experiment: Experiment, number: int) -> SynthesiseConfig:
    """The section of a shadow's images: as many as the run's generator makes."""
    place = experiment.release
    seed = derive_seed(experiment.seed, "shadow images", place.fold, number)
    return synthesise_config(experiment, place.fold, place.gan_seed).model_copy(update={"seed": seed})
