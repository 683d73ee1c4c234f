"""The one place of adversarial training that moves weights: optimisers, and the running mean of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe
from pipeline.core.errors import NonFiniteLoss


class Stepper:
    """Moves one player: freezes the others, adds up its terms, checks them, steps its optimiser."""

    def __init__(self, nets: Mapping[str, nn.Module], recipe: Recipe) -> None:
        self.nets = nets
        self.optimizers = {player.name: self._optimizer(player.trains, player.optimizer) for player in recipe.players}

    def _optimizer(self, trains: tuple[str, ...], settings: OptimizerSettings) -> torch.optim.Adam:
        weights = [weight for name in trains for weight in self.nets[name].parameters()]
        return torch.optim.Adam(weights, lr=settings.lr, betas=settings.betas, fused=True)

    def move(self, player: Player, turn: Any) -> Tensor:
        """One move of `player` on `turn`; returns its loss, detached.

        Raises:
            NonFiniteLoss: a term is NaN or infinite; no weight has been touched.
        """
        for name, net in self.nets.items():
            net.requires_grad_(name in player.trains)
        total: Tensor = torch.zeros(())
        for weighted in player.terms:
            value = weighted.term(turn) * weighted.weight
            if not torch.isfinite(value):
                raise NonFiniteLoss(
                    f"the {player.name}'s term '{weighted.name}' became {value.item()}; no weight was changed by it. "
                    "Lower gan.generator_lr and gan.discriminator_lr, or set compute.precision: float32."
                )
            total = value if weighted is player.terms[0] else total + value
        optimizer = self.optimizers[player.name]
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        return total.detach()

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])


class Ema:
    """A running mean of a net's weights; buffers are copied. Early on the mean is shorter, so that it never lags.

    The decay of step t is min(decay, (1 + t) / (10 + t)).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.decay, self.step = decay, 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        torch._foreach_lerp_(list(self.net.parameters()), [p.detach() for p in net.parameters()], 1 - decay)
        for mine, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            mine.copy_(theirs)
