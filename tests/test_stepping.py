"""The stepper's promise: a fault moves no weight, whether it is read at once or some steps later."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.adversarial import terms
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.gan_cost import noise_training
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.recipe import OptimizerSettings, Weighted
from pipeline.adversarial.stepping import Stepper
from pipeline.adversarial.turns import NoiseTurn
from pipeline.core.compute import Hardware
from pipeline.core.errors import NonFiniteLoss
from pipeline.nets.sizes import ImageShape

BATCH, STEP = 4, 2
"""The fault comes at step 2, the third."""


def poisoned(term: Callable[[NoiseTurn], Tensor], number: int) -> Weighted:
    """`term`, infinite when it is called for the `number`-th time and NaN ever after."""
    calls = count()

    def loss(turn: NoiseTurn) -> Tensor:
        call = next(calls)
        return term(turn) * (1 if call < number else float("inf") if call == number else float("nan"))

    return Weighted("poisoned", loss)


def training_of(read_every: int, sick: str = "", **optimizer: Any) -> GanTraining:
    """The same training each time; the player `sick` meets a fault at step 2."""
    config = SnganConfig(batch_size=BATCH, latent_dim=4, embedding_dim=4, generator_width=4, discriminator_width=4)
    torch.manual_seed(1)  # of the noise images
    training = noise_training(config, ImageShape((8, 8), 1, 2), Hardware("cpu", "float32"))
    plain = {"discriminator": terms.hinge_discriminator, "generator": terms.hinge_generator}
    players = tuple(
        replace(
            player,
            terms=(Weighted("poisoned", plain[player.name]) if player.name != sick else poisoned(plain[sick], STEP),),
            optimizer=OptimizerSettings(**{"lr": 1e-3, **optimizer}),
        )
        for player in training.recipe.players
    )
    recipe = replace(training.recipe, players=players)
    stepper = Stepper(training.context.nets, recipe, read_every=read_every)
    return replace(training, recipe=recipe, stepper=stepper)


def steps(training: GanTraining, num: int) -> None:
    train(training, training.num_images + num * BATCH, lambda _: None)


def moved(training: GanTraining, player: str) -> list[Tensor]:
    """Weights of a player's net, then all that its optimiser remembers."""
    optimizer = training.stepper.optimizers[player]
    remembered = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    return [value.detach().clone() for value in (*training.context.nets[player].parameters(), *remembered)]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other) > 10
    for mine, theirs in zip(one, other, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("sick", ["discriminator", "generator"])
@pytest.mark.parametrize(("read_every", "last"), [(1, STEP), (5, 5), (100, 7)])
def test_a_fault_moves_nothing_and_is_named_when_it_is_read(sick: str, read_every: int, last: int) -> None:
    healthy = training_of(1)
    steps(healthy, STEP)
    expected = moved(healthy, "generator")
    if sick == "generator":  # the discriminator moves before it
        steps(healthy, 1)
    training = training_of(read_every, sick)
    with pytest.raises(NonFiniteLoss, match=f"the {sick}'s term 'poisoned' became -?inf; no weight was changed by it"):
        steps(training, 7)
    assert training.step == last
    assert_same(moved(training, "generator"), expected)
    assert_same(moved(training, "discriminator"), moved(healthy, "discriminator"))


@pytest.mark.parametrize(
    "optimizer", [{}, {"kind": "rmsprop"}, {"clip": 0.01}, {"kind": "rmsprop", "clip": 0.01}], ids=str
)
def test_late_reading_takes_the_same_steps(optimizer: dict[str, Any]) -> None:
    at_once, late = training_of(1, **optimizer), training_of(4, **optimizer)
    for training in (at_once, late):
        steps(training, 6)
    for player in ("generator", "discriminator"):
        assert_same(moved(late, player), moved(at_once, player))


@pytest.mark.parametrize("optimizer", [{"kind": "rmsprop"}, {"clip": 0.01}], ids=str)
def test_what_no_flag_can_hold_is_read_at_once(optimizer: dict[str, Any]) -> None:
    training = training_of(100, "discriminator", **optimizer)
    with pytest.raises(NonFiniteLoss):
        steps(training, 7)
    assert training.step == STEP


def test_no_state_past_a_fault_is_saved() -> None:
    training = training_of(100, "discriminator")

    def save(training: GanTraining) -> None:
        if training.step > STEP:
            training.state_dict()

    with pytest.raises(NonFiniteLoss, match="discriminator"):
        train(training, 7 * BATCH, save)
    assert training.step == STEP + 1


def test_a_training_that_is_taken_back_goes_on() -> None:
    training, healthy = training_of(100, "discriminator"), training_of(1)
    steps(healthy, STEP)
    good = copy.deepcopy(healthy.state_dict())
    with pytest.raises(NonFiniteLoss):
        steps(training, 7)
    training.load_state_dict(good)
    well_again = replace(training, recipe=healthy.recipe)
    for own in (healthy, well_again):
        steps(own, 2)
    for player in ("generator", "discriminator"):
        assert_same(moved(well_again, player), moved(healthy, player))
