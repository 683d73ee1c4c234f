"""The one training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.adversarial.recipe import Recipe
from pipeline.adversarial.stepping import Ema, Stepper
from pipeline.adversarial.turns import Table
from pipeline.data.streams import LabelledStream
from pipeline.nets.conditions import condition_of

Watcher = Callable[["Training"], None]


@dataclass
class Training:
    """All of a training that moves: what a checkpoint holds is exactly this, but for the last step's `losses`."""

    recipe: Recipe
    table: Table
    stepper: Stepper
    ema: Ema
    stream: LabelledStream
    num_images: int = 0
    losses: dict[str, Tensor] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return {
            "nets": {name: net.state_dict() for name, net in self.table.nets.items()},
            "ema": self.ema.net.state_dict(),
            "ema_step": self.ema.step,
            "stepper": self.stepper.state_dict(),
            "stream": self.stream.state_dict(),
            "random": self.table.random.get_state(),
            "num_images": self.num_images,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, net in self.table.nets.items():
            net.load_state_dict(state["nets"][name])
        self.ema.net.load_state_dict(state["ema"])
        self.ema.step = state["ema_step"]
        self.stepper.load_state_dict(state["stepper"])
        self.stream.load_state_dict(state["stream"])
        self.table.random.set_state(state["random"].cpu())
        self.num_images = state["num_images"]


def train(training: Training, num_images: int, watch: Watcher) -> None:
    """Train until `num_images` real images have been shown; `watch` is called after every step.

    Raises:
        NonFiniteLoss: before the optimiser would have moved on it.
    """
    recipe = training.recipe
    while training.num_images < num_images:
        for player in recipe.players:
            for _ in range(player.repeats):
                turn = recipe.turn(training.table, training.stream.next(), player.trains)
                training.losses[player.name] = training.stepper.move(player, turn)
                if "discriminator" in player.trains:
                    training.losses["real_logits"] = turn.real_logits.detach().mean()
                    training.losses["fake_logits"] = turn.fake_logits.detach().mean()
        training.ema.update(training.table.nets["generator"])
        training.num_images += training.stream.batch_size
        watch(training)


@torch.no_grad()
def sample(generator: Any, label: torch.Tensor, z: torch.Tensor, batch_size: int = 100) -> torch.Tensor:
    """Images [N, C, *spatial] in [-1, 1] for given z and classes, in evaluation mode, float32, on the CPU."""
    training = generator.training
    generator.eval()
    parts = [
        generator(z[start : start + batch_size], condition_of(label[start : start + batch_size])).float().cpu()
        for start in range(0, len(z), batch_size)
    ]
    generator.train(training)
    return torch.cat(parts)
