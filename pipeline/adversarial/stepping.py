"""The one place of adversarial training that moves weights: optimisers, and the running mean of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.adversarial.recipe import Player, Recipe
from pipeline.adversarial.turns import Turn
from pipeline.core.errors import NonFiniteLoss

FLOAT32_FIRST = (
    "Set compute.precision: float32; where it is that already, lower gan.generator_lr and gan.discriminator_lr."
)


READ_EVERY = 16
"""Steps between two readings of a GPU's faults: each reading waits until the device has done all that it was given."""


class Stepper:
    """Moves one player: freezes the others, adds up its terms, checks them, steps its optimiser.

    Every term is checked on the device that computed it. With `read_every: 1` the outcome is read at once, before the
    way back, as is free on a CPU. Else a term that is not finite raises a flag on the device, no optimiser moves a
    weight or a moment while the flag is up (fused Adam takes it as AMP's `found_inf`), and `read_faults` raises the
    error later, naming the first such term. Meanwhile random numbers, running means and buffers go on: whoever looks at
    a training, or saves it, reads first. RMSprop, clipped weights and several processes are always read at once.

    Args:
        average: averages a tensor over all processes, in place; None = there is one process.
        read_every: steps after which `train` reads.

    With several processes, gradients, figures and the numbers in the recipe's states are averaged before the
    optimiser moves: where loss terms are means over images, that is what one process would have computed.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        recipe: Recipe,
        average: Callable[[Tensor], None] | None = None,
        read_every: int = 1,
    ) -> None:
        self.nets, self.average = nets, average
        self.read_every = 1 if average is not None else read_every
        self._weights = {name: list(net.parameters()) for name, net in nets.items()}
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
        self._fault = torch.zeros((), device=next(weight.device for own in self._weights.values() for weight in own))
        self._unread: list[tuple[str, tuple[str, ...], Tensor]] = []
        self.optimizers = {player.name: self._optimizer(player) for player in recipe.players}

    def weights(self, player: Player) -> list[nn.Parameter]:
        """What `player` trains."""
        return [weight for name in player.trains for weight in self._weights[name]]

    def repeats(self, player: Player) -> int:
        """Moves of `player` in the step that is being made."""
        return player.repeats

    def _optimizer(self, player: Player) -> torch.optim.Optimizer:
        weights, settings = self.weights(player), player.optimizer
        if settings.kind == "rmsprop":
            return torch.optim.RMSprop(weights, lr=settings.lr)
        optimizer = torch.optim.Adam(weights, lr=settings.lr, betas=settings.betas, fused=True)
        if not self._read_at_once(player):
            optimizer.found_inf = self._fault  # type: ignore[attr-defined]
        return optimizer

    def _read_at_once(self, player: Player) -> bool:
        return self.read_every == 1 or player.optimizer.kind == "rmsprop" or player.optimizer.clip is not None

    def move(self, player: Player, turns: Iterable[Turn], parts: int, step: int) -> dict[str, Tensor]:
        """One move of `player` on a batch that comes in `parts` turns.

        Returns:
            Its loss, its terms and its turns' figures, each the mean over all parts, detached.

        Raises:
            NonFiniteLoss: a term is NaN or infinite, in any process; no weight has been touched.
        """
        optimizer = self._only(player)
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
            gradients = [weight.grad for weight in self.weights(player) if weight.grad is not None]
            _average_all(self.average, [*gradients, *self._numbers, *figures.values()])
        optimizer.step()
        self._clip(player)
        return figures

    def _only(self, player: Player) -> torch.optim.Optimizer:
        """The optimiser of `player`, with all other nets frozen and no gradient left over."""
        for name, own in self._weights.items():
            for weight in own:
                weight.requires_grad_(name in player.trains)
        optimizer = self.optimizers[player.name]
        optimizer.zero_grad(set_to_none=True)
        return optimizer

    def _terms(self, player: Player, turn: Turn, step: int) -> dict[str, Tensor]:
        due = [weighted for weighted in player.terms if step % weighted.every == 0]
        values = {weighted.name: weighted.term(turn) * (weighted.weight * weighted.every) for weighted in due}
        checked = torch.stack(list(values.values())).detach()
        if self.average is not None:
            self.average(checked)  # all processes stop, or none
        self._unread.append((player.name, tuple(values), checked))
        if self._read_at_once(player):
            self.read_faults()
        else:
            torch.maximum(self._fault, 1 - torch.isfinite(checked).all().float(), out=self._fault)
        return {f"{player.name}.{name}": value for name, value in values.items()}

    def read_faults(self) -> None:
        """Wait for the device, and see whether all terms since the last reading were finite.

        Raises:
            NonFiniteLoss: one was not; since then no weight has been touched.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return
        if torch.isfinite(values := torch.cat([checked for _, _, checked in unread])).all():
            return
        self._fault.zero_()
        named = [(player, name) for player, names, _ in unread for name in names]
        (player, name), value = next(pair for pair in zip(named, values.tolist(), strict=True) if not isfinite(pair[1]))
        raise NonFiniteLoss(
            f"the {player}'s term '{name}' became {value}; no weight was changed by it. {FLOAT32_FIRST}"
        )

    def _clip(self, player: Player) -> None:
        if player.optimizer.clip is not None:
            with torch.no_grad():
                for weight in self.weights(player):
                    weight.clamp_(-player.optimizer.clip, player.optimizer.clip)

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def fits(self, state: Mapping[str, Any], num_images: int) -> bool:
        """Whether a state after `num_images` has what this stepper remembers beside its optimisers' memory."""
        return True

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        self._unread = []
        self._fault.zero_()


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
        self._means: list[Tensor] = [weight for net in self.nets.values() for weight in net.parameters()]
        self._moving: list[Tensor] = [weight for net in nets.values() for weight in net.parameters()]
        modules = [(net.modules() for net in sides.values()) for sides in (self.nets, nets)]
        pairs = zip(*map(chain.from_iterable, modules), strict=True)
        self._buffered = [(own, theirs) for own, theirs in pairs if any(True for _ in theirs.buffers(recurse=False))]

    @torch.no_grad()
    def update(self) -> None:
        """Move the means by one step."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        torch._foreach_lerp_(self._means, self._moving, 1 - decay)
        for own, theirs in self._buffered:
            for mean, moved in zip(own.buffers(recurse=False), theirs.buffers(recurse=False), strict=True):
                mean.copy_(moved)

    def state_dict(self) -> dict[str, Any]:
        return {"nets": {name: net.state_dict() for name, net in self.nets.items()}, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, net in self.nets.items():
            net.load_state_dict(state["nets"][name])
        self.step = state["step"]
