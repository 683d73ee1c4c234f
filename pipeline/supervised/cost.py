"""What fitting the classifiers of an experiment will cost: counted and timed on a few steps of noise images."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.arms import uses_synthetic
from pipeline.config.experiment import Experiment
from pipeline.core.compute import resolve_hardware
from pipeline.core.cost import PROCESS_MIB, CostEstimate, FlopCount
from pipeline.data.dataset import DataSet
from pipeline.data.scaling import Scaling
from pipeline.supervised.fit import Share, fit_classifier

_TIMED = 6
_CHANNELS = {"small_cnn": 16, "densenet121": 256, "resnet18": 64}
"""Channels at full size that a training step keeps, to judge memory by."""


def number_of_fits(experiment: Experiment) -> int:
    """Classifiers that a run of the experiment fits, the reverse check's among them."""
    arms = [experiment.gan.gan_seeds if uses_synthetic(arm) else 1 for arm in experiment.arms]
    reverse = experiment.gan.gan_seeds if any(map(uses_synthetic, experiment.arms)) else 0
    return experiment.data.split.num_folds * (experiment.classifier.seeds * sum(arms) + reverse)


def estimate(experiment: Experiment) -> CostEstimate:
    """Cost of all classifiers of the experiment. Trains nothing that is kept."""
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    classes, shape = experiment.data.classes, experiment.data.shape
    images = np.random.default_rng(0).integers(0, 255, (2 * len(classes), 1, *shape), dtype=np.uint8)
    manifest = pd.DataFrame({"image_id": map(str, range(len(images))), "label": list(classes) * 2, "patient_id": ""})
    noise = DataSet(Path("noise"), manifest, images, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))
    shares = [Share(noise, np.arange(len(images)))]

    def fit(steps: int) -> None:
        config = experiment.classifier.model_copy(update={"steps": steps})
        fit_classifier(config, shares, classes, hardware, classical=True, seed=0)

    with FlopCount() as counter:
        fit(1)
    started = time.perf_counter()
    fit(1)
    first = time.perf_counter() - started
    started = time.perf_counter()
    fit(_TIMED + 1)
    seconds = max(time.perf_counter() - started - first, 1e-6) / _TIMED
    steps = number_of_fits(experiment) * experiment.classifier.steps
    kept = experiment.classifier.batch_size * math.prod(shape) * 4 * _CHANNELS[experiment.classifier.network] * 3
    return CostEstimate(
        flops=float(counter.total) * steps, minutes=seconds * steps / 60, mib=PROCESS_MIB + kept / 2**20
    )
