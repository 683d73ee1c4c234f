"""Training a detector's own network on normal images, with the one supervised loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from pipeline.anomaly.detector import ImageSet, Setting
from pipeline.anomaly.frozen import enough
from pipeline.core.seeds import derive_seed
from pipeline.supervised.unlabelled import Loss, fit_unlabelled

Made = TypeVar("Made")


def built(setting: Setting, make: Callable[[], Made]) -> Made:
    """A network, or several, whose first weights come from the detector's seed, and nothing else's random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(setting.seed, "weights"))
        return make()


def train_on(images: ImageSet, nets: nn.Module, loss: Loss, setting: Setting, what: str, lr: float = 1e-3) -> None:
    """Train `nets` in place for `setting.config.steps` batches; leaves them on the CPU, in evaluation mode.

    Raises:
        DataError: there are too few images.
        NonFiniteLoss: the loss became NaN or infinite.
    """
    config = setting.config
    fit_unlabelled(
        enough(images).stored(setting.device), nets, loss, setting.hardware,
        steps=config.steps, batch_size=config.batch_size, seed=setting.seed, what=what, lr=lr,
    )  # fmt: skip
