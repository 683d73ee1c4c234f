"""What training the GANs of an experiment will cost: counted and timed on a few steps of noise images."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from pipeline.adversarial.fit import assemble
from pipeline.adversarial.loop import GanTraining, train
from pipeline.config.experiment import Experiment
from pipeline.config.gan import GanConfig
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.core.cost import PROCESS_MIB, CostEstimate, FlopCount
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.sizes import ImageShape

_WARM_UP, _TIMED = 3, 4
_COPIES = 4
"""Copies of the weights: themselves, gradients, two moments."""


def estimate(experiment: Experiment) -> CostEstimate:
    """Cost of all GANs of the experiment (folds x GAN seeds). Trains nothing that is kept."""
    config, hardware = experiment.gan, resolve_hardware(experiment.compute.device, experiment.compute.precision)
    training = noise_training(config, experiment.data.shape, len(experiment.data.classes), hardware)
    images = training.images_per_step
    with FlopCount() as counter:
        train(training, images, lambda _: None)
    train(training, images * _WARM_UP, lambda _: None)
    started = time.perf_counter()
    train(training, images * (_WARM_UP + _TIMED), lambda _: None)
    seconds = (time.perf_counter() - started) / _TIMED
    gans = experiment.data.split.num_folds * config.gan_seeds
    steps = math.ceil(config.num_images / images) * gans
    weights = sum(p.numel() for net in training.context.nets.values() for p in net.parameters()) * 4 * _COPIES
    activations = config.batch_size * math.prod(experiment.data.shape) * 4 * config.discriminator_width * 4
    return CostEstimate(
        flops=float(counter.total) * steps,
        minutes=seconds * steps / 60,
        mib=PROCESS_MIB + (weights + activations) / 2**20,
    )


def noise_training(config: GanConfig, spatial_size: Sequence[int], classes: int, hardware: Hardware) -> GanTraining:
    """A training of the configured family on noise images, to be counted and timed."""
    size = (2 * classes, 1, *spatial_size)
    images = StoredImages(
        stored=torch.randint(0, 255, size, dtype=torch.uint8, device=hardware.device),
        label=torch.arange(2 * classes, device=hardware.device) % classes,
        scaling=Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"),
        masks=torch.randint(0, 2, size, dtype=torch.uint8, device=hardware.device),
        attributes=torch.randn(2 * classes, len(config.attributes), device=hardware.device),
    )
    shape = ImageShape(tuple(spatial_size), 1, classes, len(config.attributes))
    return assemble(config, images, shape, hardware, seed=0)
