"""Training a detector's own nets against each other, with the one adversarial loop."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.recipe import Recipe
from pipeline.adversarial.stepping import READ_EVERY, Ema, Stepper
from pipeline.adversarial.turns import Context
from pipeline.anomaly.detector import Setting
from pipeline.config.augment import AugmentConfig
from pipeline.core.compute import autocast, place
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Stream
from pipeline.supervised.unlabelled import at_rest

NOT_AUGMENTED = Augmenter(AugmentConfig(brightness=0, contrast=0, shift=0, rotate_degrees=0, scale=0, noise=0))


def play(
    recipe: Recipe,
    nets: Mapping[str, nn.Module],
    streams: Mapping[str, Stream],
    setting: Setting,
    augment: Augmenter,
    ema: float,
) -> dict[str, nn.Module]:
    """Train `nets` in place for `setting.config.steps` steps, by a recipe as GAN families have one.

    Args:
        streams: the recipe's, by name.
        augment: the transforms that discriminators see images through.
        ema: decay of the running means of `recipe.averaged`; 0 = the last weights.

    Returns:
        The running means of those nets, on the CPU, in evaluation mode.

    Raises:
        NonFiniteLoss: a loss became NaN or infinite.
    """
    hardware = setting.hardware
    placed = {name: place(net, hardware).train() for name, net in nets.items()}
    states = {name: state.to(hardware.device) for name, state in recipe.states.items()}
    draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(setting.seed, "draws")))
    batch_size = next(iter(streams.values())).batch_size
    training = GanTraining(
        recipe=recipe,
        context=Context(placed, augment, draws, autocast(hardware), states),
        stepper=Stepper(placed, recipe, read_every=1 if hardware.device == "cpu" else READ_EVERY),
        ema=Ema({name: placed[name] for name in recipe.averaged}, ema),
        streams=streams,
        total_images=setting.config.steps * batch_size,
    )
    train(training, training.total_images, lambda _: None)
    return {name: at_rest(net) for name, net in training.ema.nets.items()}
