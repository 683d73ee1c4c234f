"""Training a detector's own network on normal images, with the one supervised loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import ImageSet, Setting
from pipeline.anomaly.frozen import enough
from pipeline.core.compute import autocast, place
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Stream
from pipeline.supervised.loop import minimise

_WEIGHT_DECAY = 1e-5
Loss = Callable[[Tensor, Draws], Tensor]
"""(images [B, C, *spatial] in [-1, 1] on the device, random numbers) -> a scalar in float32."""


def built(setting: Setting, make: Callable[[], nn.Module]) -> nn.Module:
    """A network whose first weights come from the detector's seed, and nothing else's random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(setting.seed, "weights"))
        return make()


def train_on(images: ImageSet, nets: nn.Module, loss: Loss, setting: Setting, what: str, lr: float = 1e-3) -> None:
    """Train `nets` in place for `setting.config.steps` batches; leaves them on the CPU, in evaluation mode.

    Raises:
        DataError: there are too few images.
        NonFiniteLoss: the loss became NaN or infinite.
    """
    config, hardware = setting.config, setting.hardware
    size = min(config.batch_size, len(enough(images)))
    stream = Stream(images.stored(setting.device), size, derive_seed(setting.seed, "order"), balanced=False)
    draws = Draws(torch.Generator(setting.device).manual_seed(derive_seed(setting.seed, "draws")))
    place(nets, hardware).train()

    def loss_at(_: int) -> Tensor:
        batch = stream.next().images
        with autocast(hardware):
            return loss(batch, draws).float()

    trained = [weight for weight in nets.parameters() if weight.requires_grad]
    minimise(loss_at, trained, steps=config.steps, lr=lr, weight_decay=_WEIGHT_DECAY, what=what)
    nets.eval().cpu()
    for weight in nets.parameters():
        weight.data = weight.data.contiguous()  # as they come back from a file: the same sums in the same order
