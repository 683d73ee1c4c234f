"""What fitting the classifiers of an experiment will cost: counted and timed on a few steps of noise images."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.config.arms import known_arm, uses_synthetic
from pipeline.config.experiment import ClassifierConfig, Experiment
from pipeline.core.compute import resolve_hardware
from pipeline.core.cost import CostEstimate, FlopCount, StepCost, one_thread, seconds_of, step_cost, wall_minutes
from pipeline.core.threads import PROCESS_MIB
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.nets.classifiers import PRETRAINED, make_classifier
from pipeline.nets.extractors import EffNetLite0
from pipeline.supervised.fit import ClassifierTraining, Phase, Regimen, Share

_TIMED = 6
_CHANNELS = {"small_cnn": 16, "densenet121": 256, "resnet18": 64}
"""Channels at full size that a training step keeps, to judge memory by."""
_PRETRAINED_MIB = 1500
"""What a step of `pretrained+classical` keeps at a batch of 32 planes: its images have one size, whatever the run's."""
_EXTRACTOR_MIB = 300
"""What the extractor needs for its batches of 16 planes."""
_VIEWS = {"simclr": 2, "autoencoder": 1, "vae": 1, "f-anogan": 2}
"""Passes of an image through a trunk, or through the encoder of a fixed representation, while it is trained."""


def number_of_fits(experiment: Experiment) -> int:
    """Trainings of `classifier.steps` steps in a run of the experiment: pre-trainings, ensembles of classifiers that
    label images, and the reverse check's are among them."""
    repeats = {False: 1, True: experiment.gan.gan_seeds}
    facts = [known_arm(arm) for arm in experiment.arms]
    arms = [repeats[arm.generator] * arm.trainings for arm in facts]
    labelling = {arm.generator for arm in facts if arm.ensemble}
    ensembles = sum(repeats[synthetic] for synthetic in labelling)
    reverse = experiment.gan.gan_seeds if any(map(uses_synthetic, experiment.arms)) else 0
    return experiment.data.split.num_folds * (experiment.classifier.seeds * (sum(arms) + ensembles) + reverse)


def estimate(experiment: Experiment) -> CostEstimate:
    """Cost of all classifiers of the experiment. Trains nothing that is kept.

    An encoder's step (SimCLR, autoencoder) is counted as a step of the run's classifier at the encoder's batch size,
    which is rough; features of frozen trunks and the logistic regressions on them are left out.
    """
    config = experiment.classifier
    if config.on_features:
        return _on_features(experiment)
    fits = experiment.data.split.num_folds * config.seeds
    own = fits * config.steps * sum(known_arm(arm).imagenet for arm in experiment.arms)
    steps = number_of_fits(experiment) * config.steps - own + fits * _encoder_steps(experiment)
    step, device = noise_step(experiment, config), resolve_hardware(experiment.compute.device).device
    flops, seconds = step.flops * steps, step.seconds * steps
    if own:
        step = noise_step(experiment, config, PRETRAINED)
        flops, seconds = flops + step.flops * own, seconds + step.seconds * own
    number = number_of_fits(experiment)
    minutes = wall_minutes(seconds / number, number, device, math.prod(experiment.data.shape))
    return CostEstimate(flops, minutes, memory_mib(experiment))


def memory_mib(experiment: Experiment) -> float:
    """MiB that a process which fits the dearest classifier of the experiment takes at its peak."""
    config = experiment.classifier
    if config.on_features:
        return PROCESS_MIB + _EXTRACTOR_MIB
    kept = config.batch_size * math.prod(experiment.data.shape) * 4 * _CHANNELS[config.network] * 3 / 2**20
    if any(known_arm(arm).imagenet for arm in experiment.arms):
        kept = max(kept, _PRETRAINED_MIB * config.batch_size / 32 * (1 if experiment.data.spatial_dims == 2 else 3))
    return PROCESS_MIB + kept


def _on_features(experiment: Experiment) -> CostEstimate:
    """Of features, for every image that a fit may see: at most `steps` batches. scikit-learn's own work is left out."""
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    extractor, noise = EffNetLite0(hardware.device), torch.zeros(_TIMED, 1, *experiment.data.shape)
    net = make_classifier(PRETRAINED, spatial_dims=experiment.data.spatial_dims, channels=1, num_classes=2).eval()
    with torch.no_grad(), FlopCount() as counter:  # under `inference_mode` nothing is counted
        net(noise)
    with one_thread():
        seconds = seconds_of(lambda: extractor.extract(noise), hardware.device)
    fits, batches = number_of_fits(experiment), experiment.classifier.steps * experiment.classifier.batch_size / _TIMED
    return CostEstimate(
        flops=counter.total * batches * fits,
        minutes=wall_minutes(seconds * batches, fits, hardware.device, math.prod(experiment.data.shape)),
        mib=memory_mib(experiment),
    )


def _encoder_steps(experiment: Experiment) -> float:
    """Steps of a classifier that take about as long as one fit's encoders."""
    learnt = {known_arm(arm).trunk or known_arm(arm).representation or "" for arm in experiment.arms}
    views = sum(_VIEWS.get(name, 0) for name in learnt)
    return (
        views * min(experiment.gan.num_images, experiment.classifier.encoder_images) / experiment.classifier.batch_size
    )


def noise_step(experiment: Experiment, config: ClassifierConfig, network: str | None = None) -> StepCost:
    """Of one training step, with classical transforms, on noise."""
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)

    def make(images: int) -> Callable[[], None]:
        return training_on_noise(experiment, config.model_copy(update={"batch_size": images}), network, steps=1)

    return step_cost(make, config.batch_size, hardware.device)


def training_on_noise(
    experiment: Experiment, config: ClassifierConfig, network: str | None = None, *, steps: int
) -> Callable[[], None]:
    """What trains one classifier for `steps` steps on noise images, as often as it is called."""
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    classes, shape = experiment.data.classes, experiment.data.shape
    images = np.random.default_rng(0).integers(0, 255, (2 * len(classes), 1, *shape), dtype=np.uint8)
    manifest = pd.DataFrame({"image_id": map(str, range(len(images))), "label": list(classes) * 2, "patient_id": ""})
    noise = DataSet(Path("noise"), manifest, images, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))
    phase = Phase((Share(noise, np.arange(len(images))),), steps)
    training = ClassifierTraining(config, Regimen((phase,), network=network), classes, hardware, seed=0)
    return partial(training.run, phase)
