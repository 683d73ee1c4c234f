"""What training the GANs of an experiment will cost: counted and timed on a few steps of noise images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.cells import cells_of_generator, nets_classes, nets_positive, nets_shape
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.private.budget import Budget
from pipeline.adversarial.recipe import Recipe
from pipeline.config.experiment import Experiment
from pipeline.config.gan import GanConfig
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.core.cost import CostEstimate, StepCost, step_cost, wall_minutes
from pipeline.core.threads import PROCESS_MIB
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.sizes import ImageShape

_COPIES = 4
"""Copies of the weights: themselves, gradients, two moments."""
_PATIENTS_PER_DRAWN = 4


def estimate(experiment: Experiment) -> CostEstimate:
    """Cost of all GANs of the experiment (folds x GAN seeds, and an attack's shadows). Trains nothing that is kept."""
    config, hardware = experiment.gan, resolve_hardware(experiment.compute.device, experiment.compute.precision)
    shape = shape_of_nets(experiment)
    training = noise_training(config, shape, hardware)
    step = mean_step(config, shape, hardware)
    steps = math.ceil(config.num_images / training.images_per_step)
    gans = experiment.data.split.num_folds * config.gan_seeds + experiment.privacy.trained_shadows
    return CostEstimate(
        flops=step.flops * steps * gans,
        minutes=wall_minutes(step.seconds * steps, gans, hardware.device, math.prod(experiment.data.shape)),
        mib=memory_mib(experiment, _weights_mib(training)),
    )


def weights_mib(experiment: Experiment) -> float:
    """MiB of the weights of one GAN's nets, in float32."""
    return _weights_mib(noise_training(experiment.gan, shape_of_nets(experiment), Hardware("cpu", "float32")))


def shape_of_nets(experiment: Experiment) -> ImageShape:
    """What the nets of the experiment's GANs must fit, if its images have one channel."""
    cells = cells_of_generator(experiment)
    classes, positive = nets_classes(experiment, cells), nets_positive(experiment, cells)
    return nets_shape(experiment.gan, experiment.data.shape, 1, classes, positive, cells)


def memory_mib(experiment: Experiment, weights: float) -> float:
    """MiB that a process which trains one GAN takes at its peak, where its nets' weights take `weights` MiB."""
    config = experiment.gan
    part = math.ceil(config.batch_size / config.accumulate)
    activations = part * math.prod(experiment.data.shape) * 4 * config.discriminator_width * 4 / 2**20
    return PROCESS_MIB + weights * _COPIES + activations


def _weights_mib(training: GanTraining) -> float:
    return sum(p.numel() for net in training.context.nets.values() for p in net.parameters()) * 4 / 2**20


def mean_step(config: GanConfig, shape: ImageShape, hardware: Hardware) -> StepCost:
    """Of a step of the configured batch, the mean over a cycle of the recipe's lazy terms."""
    part = config.batch_size // config.accumulate
    found = [
        (share, step_cost(partial(_one_step, config, shape, hardware, number), part, hardware.device))
        for number, share in _kinds_of_steps(FAMILIES[config.family].recipe(config))
    ]
    flops, seconds = (
        config.accumulate * sum(share * getattr(cost, name) for share, cost in found) for name in ("flops", "seconds")
    )
    return StepCost(flops, seconds)


def _kinds_of_steps(recipe: Recipe) -> list[tuple[int, float]]:
    """A step of each kind, as lazy terms are due or not, with its share of all steps."""
    every = [weighted.every for player in recipe.players for weighted in player.terms]
    cycle = math.lcm(*every)
    kinds = [tuple(number % one == 0 for one in every) for number in range(cycle)]
    return [(kinds.index(kind), count / cycle) for kind, count in Counter(kinds).items()]


def _one_step(config: GanConfig, shape: ImageShape, hardware: Hardware, number: int, images: int) -> Callable[[], None]:
    """What does a step of the kind of the given one, as often as it is called, on so many images."""
    small = config.model_copy(update={"batch_size": images, "accumulate": 1})
    training = noise_training(small, shape, hardware)

    def step() -> None:
        training.step = number
        train(training, training.num_images + training.images_per_step, lambda _: None)

    return step


def noise_training(config: GanConfig, shape: ImageShape, hardware: Hardware) -> GanTraining:
    """A training of the configured family on noise images, to be counted and timed."""
    classes = shape.num_classes
    many = 2 * classes if config.dp is None else max(2 * classes, _PATIENTS_PER_DRAWN * config.batch_size)
    size = (many, shape.channels, *shape.spatial_size)
    images = StoredImages(
        stored=torch.randint(0, 255, size, dtype=torch.uint8, device=hardware.device),
        label=torch.arange(many, device=hardware.device) % classes,
        scaling=Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"),
        masks=torch.randint(0, 2, (many, 1, *shape.spatial_size), dtype=torch.uint8, device=hardware.device),
        attributes=torch.randn(many, shape.num_attributes, device=hardware.device),
        patient=torch.arange(many),
    )
    boundless = Budget(1.0, 1e-5, many, clip=1.0, noise=1.0, rate=config.batch_size / many, allowed=10**9)
    budget = None if config.dp is None else boundless
    return assemble(config, images, shape, hardware, seed=0, budget=budget, taught=False)
