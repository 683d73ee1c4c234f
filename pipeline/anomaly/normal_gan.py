"""The GAN that detectors look through: trained as any other, on normal patients alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.fit import FitConfig, fit_config
from pipeline.config.families import DEFAULT_FAMILY, validate_gan
from pipeline.config.gan import GanConfig
from pipeline.core.seeds import derive_seed

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment


def fit_normals_config(experiment: Experiment, normal: Sequence[str], fold: int) -> FitConfig:
    """The section of the GAN that anomaly detectors look through: it sees normal patients alone.

    It is of the run's family and sizes; where that family translates between classes or is asked by masks, which
    healthy images alone cannot teach, of the default one. Attributes are left out: an image to be scored has none.
    It never leaves, and so has no `gan.dp`; it begins at random weights.
    """
    gan, images = experiment.gan, experiment.anomaly.gan_images or experiment.gan.num_images
    changes = {"attributes": (), "num_images": images, "dp": None}
    family = FAMILIES[gan.family]
    if family.needs or set(family.recipe(gan).streams) - {"labelled", "unlabelled"}:
        shared = {name: getattr(gan, name) for name in GanConfig.model_fields if name != "family"}
        gan = validate_gan(shared | {"family": DEFAULT_FAMILY})
    return fit_config(experiment, fold, 0).model_copy(
        update={
            "gan": gan.model_copy(update={**changes, "gan_seeds": 1}),
            "classes": tuple(normal),
            "positive": (),
            "cells": {},
            "site": "",
            "seed": derive_seed(experiment.seed, "gan of normals", fold),
            "normals_only": True,
        }
    )
