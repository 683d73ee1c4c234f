"""The one place of adversarial training that moves weights: optimisers, and the running mean of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe
from pipeline.adversarial.turns import Turn
from pipeline.core.errors import NonFiniteLoss


class Stepper:
    """Moves one player: freezes the others, adds up its terms, checks them, steps its optimiser.

    Args:
        share: averages a tensor over all processes, in place; None = there is one process.
    """

    def __init__(
        self, nets: Mapping[str, nn.Module], recipe: Recipe, share: Callable[[Tensor], None] | None = None
    ) -> None:
        self.nets, self.share = nets, share
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
            Its loss, its terms and the last turn's figures, detached.

        Raises:
            NonFiniteLoss: a term is NaN or infinite; no weight has been touched.
        """
        for name, net in self.nets.items():
            net.requires_grad_(name in player.trains)
        optimizer = self.optimizers[player.name]
        optimizer.zero_grad(set_to_none=True)
        figures: dict[str, Tensor] = {}
        for turn in turns:
            with parametrize.cached():  # spectral norms move once a turn, and are the same when recomputed
                terms = self._terms(player, turn, step)
                total = torch.stack(list(terms.values())).sum()
                (total / parts).backward()
            figures = {player.name: total.detach()} | turn.figures()
            if len(player.terms) > 1:
                figures |= {name: value.detach() for name, value in terms.items()}
        self._share_gradients(player)
        optimizer.step()
        self._clip(player)
        return figures

    def _terms(self, player: Player, turn: Turn, step: int) -> dict[str, Tensor]:
        values = {}
        for weighted in player.terms:
            if step % weighted.every:
                continue
            value = weighted.term(turn) * (weighted.weight * weighted.every)
            if not torch.isfinite(value):
                raise NonFiniteLoss(
                    f"the {player.name}'s term '{weighted.name}' became {value.item()}; no weight was changed by it. "
                    "Lower gan.generator_lr and gan.discriminator_lr, or set compute.precision: float32."
                )
            values[f"{player.name}.{weighted.name}"] = value
        return values

    def _share_gradients(self, player: Player) -> None:
        if self.share is not None:
            for weight in self._weights(player.trains):
                if weight.grad is not None:
                    self.share(weight.grad)

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
