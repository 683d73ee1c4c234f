"""The one place of adversarial training that moves weights: optimisers, and the running mean of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe
from pipeline.adversarial.turns import Turn
from pipeline.core.errors import NonFiniteLoss

FLOAT32_FIRST = (
    "Set compute.precision: float32; where it is that already, lower gan.generator_lr and gan.discriminator_lr."
)


class Stepper:
    """Moves one player: freezes the others, adds up its terms, checks them, steps its optimiser.

    Args:
        average: averages a tensor over all processes, in place; None = there is one process.

    With several processes, gradients, figures and the numbers in the recipe's states are averaged before the
    optimiser moves: where loss terms are means over images, that is what one process would have computed.
    """

    def __init__(
        self, nets: Mapping[str, nn.Module], recipe: Recipe, average: Callable[[Tensor], None] | None = None
    ) -> None:
        self.nets, self.average = nets, average
        self._numbers = [
            value
            for state in recipe.states.values()
            for value in state.buffers()
            if value.ndim == 0 and value.is_floating_point()
        ]
        self._normalised = [
            (module, name)
            for net in nets.values()
            for module in net.modules()
            if parametrize.is_parametrized(module)
            for name in module.parametrizations  # type: ignore[union-attr]
        ]
        self.optimizers = {player.name: self._optimizer(player.trains, player.optimizer) for player in recipe.players}

    def _weights(self, trains: tuple[str, ...]) -> list[nn.Parameter]:
        return [weight for name in trains for weight in self.nets[name].parameters()]

    def _optimizer(self, trains: tuple[str, ...], settings: OptimizerSettings) -> torch.optim.Optimizer:
        if settings.kind == "rmsprop":
            return torch.optim.RMSprop(self._weights(trains), lr=settings.lr)
        return torch.optim.Adam(self._weights(trains), lr=settings.lr, betas=settings.betas, fused=True)

    def move(self, player: Player, turns: Iterable[Turn], parts: int, step: int) -> dict[str, Tensor]:
        """One move of `player` on a batch that comes in `parts` turns.

        Returns:
            Its loss, its terms and its turns' figures, each the mean over all parts, detached.

        Raises:
            NonFiniteLoss: a term is NaN or infinite, in any process; no weight has been touched.
        """
        for name, net in self.nets.items():
            net.requires_grad_(name in player.trains)
        optimizer = self.optimizers[player.name]
        optimizer.zero_grad(set_to_none=True)
        figures: dict[str, Tensor] = {}
        for turn in turns:
            with parametrize.cached():  # spectral norms move once a turn, in float32, outside recomputed blocks
                for module, name in self._normalised:
                    getattr(module, name)
                terms = self._terms(player, turn, step)
                total = torch.stack(list(terms.values())).sum()
                (total / parts).backward()
            seen = {player.name: total.detach()} | turn.figures()
            if len(player.terms) > 1:
                seen |= {name: value.detach() for name, value in terms.items()}
            figures = {name: figures.get(name, 0) + value / parts for name, value in seen.items()}
        if self.average is not None:
            gradients = [weight.grad for weight in self._weights(player.trains) if weight.grad is not None]
            _average_all(self.average, [*gradients, *self._numbers, *figures.values()])
        optimizer.step()
        self._clip(player)
        return figures

    def _terms(self, player: Player, turn: Turn, step: int) -> dict[str, Tensor]:
        due = [weighted for weighted in player.terms if step % weighted.every == 0]
        values = {weighted.name: weighted.term(turn) * (weighted.weight * weighted.every) for weighted in due}
        checked = torch.stack(list(values.values())).detach()
        if self.average is not None:
            self.average(checked)  # all processes stop, or none
        if not torch.isfinite(checked).all():
            name, value = next(pair for pair in zip(values, checked.tolist(), strict=True) if not isfinite(pair[1]))
            raise NonFiniteLoss(
                f"the {player.name}'s term '{name}' became {value}; no weight was changed by it. {FLOAT32_FIRST}"
            )
        return {f"{player.name}.{name}": value for name, value in values.items()}

    def _clip(self, player: Player) -> None:
        if player.optimizer.clip is not None:
            with torch.no_grad():
                for weight in self._weights(player.trains):
                    weight.clamp_(-player.optimizer.clip, player.optimizer.clip)

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])


def _average_all(average: Callable[[Tensor], None], tensors: Sequence[Tensor]) -> None:
    """Average all of `tensors` over the processes, in place, as one message."""
    message = torch.cat([tensor.flatten() for tensor in tensors])
    average(message)
    for tensor, mean in zip(tensors, message.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view(tensor.shape))


class Ema:
    """Running means of nets' weights; buffers are copied. Early on the mean is shorter, so that it never lags.

    The decay of step t is min(decay, (1 + t) / (10 + t)).
    """

    def __init__(self, nets: Mapping[str, nn.Module], decay: float) -> None:
        self.nets = {name: copy.deepcopy(net).requires_grad_(False) for name, net in nets.items()}
        self.decay, self.step = decay, 0

    @torch.no_grad()
    def update(self, nets: Mapping[str, nn.Module]) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        for name, mean in self.nets.items():
            moving = [weight.detach() for weight in nets[name].parameters()]
            torch._foreach_lerp_(list(mean.parameters()), moving, 1 - decay)
            for mine, theirs in zip(mean.buffers(), nets[name].buffers(), strict=True):
                mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        return {"nets": {name: net.state_dict() for name, net in self.nets.items()}, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, net in self.nets.items():
            net.load_state_dict(state["nets"][name])
        self.step = state["step"]
