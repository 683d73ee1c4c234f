"""A GAN and a classifier trained on images that take more memory than the process may have. Run: it, and a data set."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import torch

from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.fit import FitConfig, start
from pipeline.adversarial.loop import train
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware
from pipeline.data.batches.dataset import open_dataset
from pipeline.supervised.fit import Share, fit_classifier

CLASSES = ("normal", "disease")


def fitted(root: Path) -> None:
    """Some steps of both."""
    dataset = open_dataset(root)
    rows = np.arange(len(dataset.manifest))
    gan = SnganConfig(num_images=16, batch_size=8, generator_width=4, discriminator_width=4)
    config = FitConfig(
        gan=gan,
        classes=CLASSES,
        positive=("disease",),
        fold=0,
        gan_seed=0,
        seed=0,
        device="cpu",
        precision="float32",
        deterministic=True,
    )
    training, _ = start(config, dataset, rows)
    train(training, 16, lambda _: None)
    classifier = ClassifierConfig(steps=2, batch_size=8)
    fit_classifier(classifier, [Share(dataset, rows)], CLASSES, Hardware("cpu", "float32"), classical=True, seed=0)


def data_bytes() -> int:
    """What the kernel counts as this process's own memory: all but what it could read again from a file."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    small, large, more = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    fitted(small)  # libraries take what they take at the first step
    limit = data_bytes() + more
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    fitted(large)
