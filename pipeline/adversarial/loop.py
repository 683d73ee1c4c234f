"""The one training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.adversarial.recipe import Player, Recipe
from pipeline.adversarial.stepping import Ema, Stepper
from pipeline.adversarial.turns import Context, Turn
from pipeline.data.batches.streams import BatchStream
from pipeline.nets.conditions import Condition, TruncatedGenerator, as_generator

if TYPE_CHECKING:
    from pipeline.adversarial.private.budget import Budget

Watcher = Callable[["GanTraining"], None]


@dataclass
class GanTraining:
    """All of a training that moves: what a checkpoint holds is exactly this.

    Attributes:
        total_images: the length that schedules reckon with.
        accumulate: parts that every batch is computed in; a stream gives one part at a time.
        figures: of the last step; schedules read them.
        budget: what is spent of a training's privacy; None = it promises none.
    """

    recipe: Recipe
    context: Context
    stepper: Stepper
    ema: Ema
    streams: Mapping[str, BatchStream]
    total_images: int
    accumulate: int = 1
    num_images: int = 0
    step: int = 0
    figures: dict[str, Tensor] = field(default_factory=dict)
    budget: Budget | None = None

    @property
    def images_per_step(self) -> int:
        """Real images that the player who moves most often sees in a step."""
        batch = next(iter(self.streams.values())).batch_size
        return batch * self.accumulate * max(map(self.stepper.repeats, self.recipe.players))

    def turn(self, player: Player) -> Turn:
        """The next turn of `player`, on fresh batches."""
        batches = {name: stream.next() for name, stream in self.streams.items()}
        return self.recipe.turn(self.context, batches, player.trains)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds.

        Raises:
            NonFiniteLoss: this training is past a fault.
        """
        self.stepper.read_faults()
        return {
            "nets": {name: net.state_dict() for name, net in self.context.nets.items()},
            "states": {name: state.state_dict() for name, state in self.context.states.items()},
            "ema": self.ema.state_dict(),
            "stepper": self.stepper.state_dict(),
            "streams": {name: stream.state_dict() for name, stream in self.streams.items()},
            "random": self.context.draws.generator.get_state(),
            "num_images": self.num_images,
            "step": self.step,
            "figures": dict(self.figures),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, net in self.context.nets.items():
            net.load_state_dict(state["nets"][name])
        for name, remembered in self.context.states.items():
            remembered.load_state_dict(state["states"][name])
        self.ema.load_state_dict(state["ema"])
        self.stepper.load_state_dict(state["stepper"])
        for name, stream in self.streams.items():
            stream.load_state_dict(state["streams"][name])
        self.context.draws.generator.set_state(state["random"].cpu())
        self.num_images, self.step, self.figures = state["num_images"], state["step"], dict(state["figures"])


def train(training: GanTraining, num_images: int, watch: Watcher) -> None:
    """Train until `num_images` real images have been shown; `watch` is called after every step.

    Raises:
        NonFiniteLoss: a loss was NaN or infinite; no optimiser has moved on it, nor after it.
    """
    recipe, parts = training.recipe, training.accumulate
    while training.num_images < num_images:
        for schedule in recipe.schedules:
            schedule(training)
        for player in recipe.players:
            for _ in range(training.stepper.repeats(player)):
                turns = (training.turn(player) for _ in range(parts))
                training.figures |= training.stepper.move(player, turns, parts, training.step)
        training.ema.update()
        training.num_images += training.images_per_step
        training.step += 1
        if training.step % training.stepper.read_every == 0:
            training.stepper.read_faults()
        watch(training)
    training.stepper.read_faults()


@torch.no_grad()
def sample(generator: nn.Module, z: Tensor, condition: Condition, truncation_psi: float = 1.0) -> Tensor:
    """Images [N, C, *spatial] in [-1, 1] for given z and condition, in evaluation mode, float32, on the CPU.

    Below 1, `truncation_psi` gives images nearer to the mean and less different from each other: by the generator's
    own `truncated` if it has one, else by scaling z.
    """
    training = generator.training
    generator.eval()
    if truncation_psi < 1 and isinstance(generator, TruncatedGenerator):
        images = generator.truncated(z, condition, truncation_psi)
    else:
        images = as_generator(generator)(z * truncation_psi, condition)
    generator.train(training)
    return images.float().cpu()
