"""How likely augmentation is: by rule, or adapted to keep the discriminator from overfitting.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.adversarial.recipe import Recipe, ScheduledTraining
from pipeline.config.augment import AugmentConfig
from pipeline.config.gan import AdaConfig, GanConfig
from pipeline.core.errors import ConfigError
from pipeline.data.batches.augmentation import Augmenter

ADA = "ada"
_RARELY, _OFTEN = 10.0, 100.0
"""Times that a training shows each image: augmentation never below the first, always above the second."""
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
    def __call__(self, training: ScheduledTraining) -> None:
        state = training.context.states[ADA]
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


def augmenter_of(gan: GanConfig, images: int, state: nn.Module | None) -> Augmenter:
    """The transforms that a training's discriminators see images through.

    Args:
        images: how many different images the training shows.
        state: of adaptive augmentation, if there is one.
    """
    if isinstance(state, AdaState):
        return Augmenter(gan.augment, state.probability)
    probability = augment_probability(gan, images)
    if probability == 0:
        still = {name: () if name == "flip" else 0 for name in AugmentConfig.model_fields}
        return Augmenter(AugmentConfig.model_validate(still))
    return Augmenter(gan.augment, None if probability == 1 else torch.tensor(probability))


def augment_probability(gan: GanConfig, images: int) -> float:
    """The fixed probability of each transform: the configured one, or by how often each image is shown."""
    if gan.augment_probability != "auto":
        return gan.augment_probability
    shown = gan.num_images / images
    share = (math.log(shown) - math.log(_RARELY)) / (math.log(_OFTEN) - math.log(_RARELY))
    return min(max(share, 0.0), 1.0)


def adaptive(recipe: Recipe, ada: AdaConfig, family: str, nets: Mapping[str, nn.Module]) -> Recipe:
    """The recipe with adaptive augmentation; the probability is in its state `ada`.

    Raises:
        ConfigError: the family has no discriminator.
    """
    if not any(name.startswith("discriminator") for name in nets):
        raise ConfigError(f"gan.family: {family} has no discriminator: leave out gan.ada.")
    return replace(recipe, states={**recipe.states, ADA: AdaState()}, schedules=(*recipe.schedules, AdaSchedule(ada)))
