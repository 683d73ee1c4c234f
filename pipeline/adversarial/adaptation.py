"""Adaptive discriminator augmentation: as likely as it must be to keep the discriminator from overfitting.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.adversarial.recipe import Recipe
from pipeline.config.gan import AdaConfig
from pipeline.core.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.adversarial.loop import Training

ADA = "ada"
_EVERY = 4
"""Steps between two moves of the probability."""


class AdaState(nn.Module):
    """What adaptive augmentation remembers.

    Attributes:
        probability: p, with which each transform acts on each image.
        overfitting: r_t = E[sign D(real)] over the last four steps: 0 = none, 1 = it knows every training image.
        signs: the sum of sign D(real) since then.
    """

    probability: Tensor
    overfitting: Tensor
    signs: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("probability", "overfitting", "signs"):
            self.register_buffer(name, torch.zeros(()))


class AdaSchedule:
    """Moves p by a fixed amount every four steps: up where r_t is above its target, down where it is below.

    The amount lets p go from 0 to 1 in `ada.num_images` real images.
    """

    def __init__(self, ada: AdaConfig) -> None:
        self.ada = ada

    @torch.no_grad()
    def __call__(self, training: Training) -> None:
        state = training.table.states[ADA]
        assert isinstance(state, AdaState)
        if training.step:
            state.signs.add_(training.figures["real_sign"])
        if training.step and training.step % _EVERY == 0:
            state.overfitting.copy_(state.signs / _EVERY)
            state.signs.zero_()
            amount = _EVERY * training.images_per_step / self.ada.num_images
            towards = torch.sign(state.overfitting - self.ada.target)
            state.probability.add_(towards * amount).clamp_(0, 1)
        training.figures["ada_probability"] = state.probability.clone()
        training.figures["overfitting_estimate"] = state.overfitting.clone()


def adaptive(recipe: Recipe, ada: AdaConfig, family: str, nets: Mapping[str, nn.Module]) -> Recipe:
    """The recipe with adaptive augmentation; the probability is in its state `ada`.

    Raises:
        ConfigError: the family has no discriminator.
    """
    if not any(name.startswith("discriminator") for name in nets):
        raise ConfigError(f"gan.family: {family} has no discriminator: leave out gan.ada.")
    return replace(recipe, states={**recipe.states, ADA: AdaState()}, schedules=(*recipe.schedules, AdaSchedule(ada)))
