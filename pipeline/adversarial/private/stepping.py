"""DP-SGD: a discriminator's move in which no patient counts for more than a bound, and noise hides each one.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016; for GANs Bie et al., "Private GANs, Revisited", TMLR
2023. The generator learns from the discriminator alone, so that its weights promise what the discriminator's do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.adversarial.private.budget import Budget
from pipeline.adversarial.private.pace import PACE, TOLD, Pace, PaceSchedule
from pipeline.adversarial.recipe import Player, Recipe
from pipeline.adversarial.stepping import Stepper
from pipeline.adversarial.turns import NoiseTurn, Turn
from pipeline.config.dp import DpConfig
from pipeline.data.batches.patients import PatientBatch
from pipeline.nets.conditions import Condition, Judgement

PRIVATE_NET = "discriminator"
STREAM = "patients"


class PrivateTurn(NoiseTurn):
    """The discriminator sees each drawn patient's image beside ONE fake of its class; the generator none of it.

    What the generator is asked for when it moves is drawn without the patients, and nothing of the real images' logits
    is told.
    """

    @cached_property
    def condition(self) -> Condition:
        batch = self.batch
        assert isinstance(batch, PatientBatch)
        return Condition(label=batch.label if PRIVATE_NET in self.trains else batch.asked)

    @cached_property
    def z(self) -> Tensor:
        """Standard normal [B, latent_dim], one for each image that is asked for."""
        return self.context.draws.randn((len(self.condition.required_label()), self.context.generator.latent_dim))

    def judge(self, images: Tensor, condition: Condition, discriminator: str = PRIVATE_NET) -> Judgement:
        return super().judge(images.contiguous(), condition, discriminator)  # see `assemble`

    def figures(self) -> dict[str, Tensor]:
        """Of a generator's move, the share of its fakes that the discriminator tells."""
        return {TOLD: (self.fake_logits.detach() < 0).float().mean()}


def private_recipe(recipe: Recipe, dp: DpConfig, schedule: PaceSchedule | None = None) -> Recipe:
    """The recipe with patients for batches and `discriminator_steps` moves of the discriminator a step.

    Args:
        schedule: of these moves, where they are adaptive.
    """
    players = tuple(
        replace(player, repeats=dp.whole_step) if PRIVATE_NET in player.trains else player for player in recipe.players
    )
    private = replace(recipe, players=players, turn=PrivateTurn, streams=(STREAM,))
    if schedule is None:
        return private
    return replace(private, states={**recipe.states, PACE: Pace()}, schedules=(*recipe.schedules, schedule))


class PrivateStepper(Stepper):
    """Moves the discriminator by the noisy sum of its patients' clipped gradients, all else as ever.

    A patient's gradient is that of the whole loss of his image and of the one fake beside it, in one backward pass:
    their norm together is at most `budget.clip`, whatever the image is. So a patient who comes or goes moves the sum by
    `clip` at most. To clip real and fake apart would double that, unseen.

    Args:
        random: on the nets' device, of a seed that nobody knows: who can make the noise again can take it away.
    """

    def __init__(
        self, nets: Mapping[str, nn.Module], recipe: Recipe, budget: Budget, batch_size: int, random: torch.Generator
    ) -> None:
        from opacus.grad_sample import GradSampleHooks

        super().__init__(nets, recipe)
        self.budget, self.batch_size, self.random = budget, batch_size, random
        self._pace = recipe.states.get(PACE)
        self._hooks = GradSampleHooks(nets[PRIVATE_NET], loss_reduction="sum", strict=True)
        self._hooks.disable_hooks()

    def repeats(self, player: Player) -> int:
        if isinstance(self._pace, Pace) and PRIVATE_NET in player.trains:
            return int(self._pace.moves)
        return super().repeats(player)

    def move(self, player: Player, turns: Iterable[Turn], parts: int, step: int) -> dict[str, Tensor]:
        """As of every stepper; of a discriminator's move no figure is told, since it would be one of the patients.

        Raises:
            BudgetSpent: the move would cost more than is allowed.
        """
        if PRIVATE_NET not in player.trains:
            return super().move(player, turns, parts, step)
        self.budget.look()
        optimizer = self._only(player)
        (turn,) = turns
        weights = self.weights(player)
        drawn = len(turn.batch.label)
        sums = [torch.zeros_like(weight) for weight in weights]
        if drawn:
            sums = clipped_sums(weights, self._gradients(player, turn, step), self.budget.clip)
        for weight, summed in zip(weights, sums, strict=True):
            weight.grad = self._noisy(summed) / self.batch_size
        optimizer.step()
        return {}

    def _gradients(self, player: Player, turn: Turn, step: int) -> list[Tensor]:
        """The gradient of each drawn patient's loss, [B, *weight] for every weight: terms are means over patients."""
        self._hooks.enable_hooks()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")  # images need no gradient
            total = torch.stack(list(self._terms(player, turn, step).values())).sum() * len(turn.batch.label)
            total.backward()
        self._hooks.disable_hooks()
        weights = self.weights(player)
        gradients = [weight.grad_sample for weight in weights]  # type: ignore[attr-defined]
        for weight in weights:
            weight.grad_sample = None  # type: ignore[attr-defined]
        return gradients

    def _noisy(self, summed: Tensor) -> Tensor:
        noise = torch.randn(summed.shape, generator=self.random, device=summed.device)
        return summed + self.budget.noise * self.budget.clip * noise

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"budget": self.budget.state_dict(), "noise": self.random.get_state()}

    def fits(self, state: Mapping[str, Any], num_images: int) -> bool:
        looks = num_images // self.batch_size
        return self.budget.fits(state["budget"], looks) and state["noise"].dtype == torch.uint8

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.budget.looks = state["budget"]["looks"]
        self.random.set_state(state["noise"].cpu())


def clipped_sums(weights: Sequence[Tensor], gradients: Sequence[Tensor], clip: float) -> list[Tensor]:
    """Sums over patients of gradients that are shortened to a norm of `clip` where they are longer.

    Args:
        gradients: [B, *weight] for every weight; the norm is over all weights together.
    """
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    factors = clip / norms.clamp(min=clip)
    return [
        torch.einsum("b,b...->...", factors, gradient).view_as(weight)
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
