"""Objectives and regularisers against worked numbers; how the stepper weighs, clips and steps; the first families."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.adversarial import penalties, terms
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.stepping import Stepper
from pipeline.adversarial.turns import Context, NoiseTurn
from pipeline.adversarial.wasserstein import WassersteinTurn
from pipeline.config.augment import AugmentConfig
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware, autocast
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Batch
from pipeline.nets.classic import StridedDiscriminator
from pipeline.nets.conditions import Condition, Judgement, condition_of
from pipeline.nets.sizes import ImageShape

LOG3 = math.log(3)  # sigmoid(log 3) = 3/4
NO_AUGMENT = AugmentConfig(brightness=0, contrast=0, shift=0, rotate_degrees=0, scale=0, noise=0)


def logits(real: list[float], fake: list[float]) -> Any:
    """What an objective reads of a turn."""
    return SimpleNamespace(
        real_logits=torch.tensor(real, requires_grad=True), fake_logits=torch.tensor(fake, requires_grad=True)
    )


class Given(nn.Module):
    """A generator of fixed images, times a weight of 1."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.latent_dim, self.images, self.gain = 2, images, nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        return self.images * self.gain


class Linear(nn.Module):
    """D(x) = w · x: its gradient is w everywhere. Remembers what it was shown."""

    def __init__(self, weight: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        self.seen.append(images)
        return Judgement(nn.functional.linear(images, self.weight[None]).squeeze(1))


class HalfSquare(nn.Module):
    """D(x) = |x|² / 2: its gradient is x."""

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        return Judgement(0.5 * images.flatten(1).square().sum(dim=1))


def number(value: Tensor) -> float:
    return float(value.detach())


def turn_of(
    discriminator: nn.Module, real: Tensor, fake: Tensor, kind: type[NoiseTurn] = NoiseTurn, **table: Any
) -> NoiseTurn:
    nets = {"generator": Given(fake), "discriminator": discriminator}
    shared = {"autocast": nullcontext()} | table
    draws = Draws(torch.Generator().manual_seed(0))
    batch = Batch(real, torch.zeros(len(real), dtype=torch.int64))
    return kind(Context(nets, Augmenter(NO_AUGMENT), draws, **shared), {"labelled": batch}, ("discriminator",))


WORKED = {
    "an undecided logistic discriminator": (terms.logistic_discriminator, [0.0, 0.0], [0.0], 2 * math.log(2)),
    "logistic": (terms.logistic_discriminator, [LOG3], [LOG3], -math.log(3 / 4) - math.log(1 / 4)),
    "smoothed logistic": (
        terms.smoothed_logistic_discriminator(0.9), [LOG3], [LOG3],
        -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4) - math.log(1 / 4),
    ),
    "non-saturating": (terms.non_saturating_generator, [9.0], [LOG3, 0.0], 0.5 * (math.log(4 / 3) + math.log(2))),
    "minimax": (terms.minimax_generator, [9.0], [LOG3, 0.0], 0.5 * (math.log(1 / 4) + math.log(1 / 2))),
    "Wasserstein, discriminator": (terms.wasserstein_discriminator, [1.0, 3.0], [0.0, 1.0], 0.5 - 2.0),
    "Wasserstein, generator": (terms.wasserstein_generator, [9.0], [0.0, 1.0], -0.5),
    "hinge, discriminator": (terms.hinge_discriminator, [2.0, 0.5, -1.0], [-2.0, 0.0, 1.0], 2.5 / 3 + 3.0 / 3),
    "hinge, generator": (terms.hinge_generator, [9.0], [-2.0, 0.0, 1.0], 1 / 3),
    "least squares, discriminator": (terms.least_squares_discriminator, [1.0, 0.0], [2.0, 0.0], 0.25 + 1.0),
    "least squares, generator": (terms.least_squares_generator, [9.0], [3.0, 1.0], 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKED)
def test_objectives_give_the_worked_numbers_whatever_the_batch(name: str) -> None:
    term, real, fake, expected = WORKED[name]
    assert number(term(logits(real, fake))) == pytest.approx(expected, abs=1e-6)
    assert number(term(logits(real * 3, fake * 2))) == pytest.approx(expected, abs=1e-6)


def test_objectives_are_finite_where_sigmoids_are_not() -> None:
    """A squashed form gives log 0 here."""
    far = logits([-200.0], [200.0])
    assert number(terms.logistic_discriminator(far)) == pytest.approx(400.0)
    assert number(terms.minimax_generator(far)) == pytest.approx(-200.0)


def test_only_the_minimax_generator_saturates() -> None:
    """Where the discriminator is sure of a fake, one gradient is -sigmoid = 0, the other sigmoid - 1 = -1."""
    for term, slope in ((terms.minimax_generator, 0.0), (terms.non_saturating_generator, -1.0)):
        turn = logits([0.0], [-30.0])
        term(turn).backward()
        assert float(turn.fake_logits.grad) == pytest.approx(slope, abs=1e-6)


def test_smoothing_stops_the_discriminator_at_the_real_target() -> None:
    """The loss on real images is lowest at sigmoid(logit) = 0.9, and fakes are pushed down without a target."""
    turn = logits([math.log(0.9 / 0.1)], [math.log(0.1 / 0.9)])
    terms.smoothed_logistic_discriminator(0.9)(turn).backward()
    assert float(turn.real_logits.grad) == pytest.approx(0.0, abs=1e-6)
    assert float(turn.fake_logits.grad) == pytest.approx(0.1, abs=1e-6)


def test_auxiliary_classifier_terms_are_cross_entropies_of_their_own_side() -> None:
    """Probabilities (1/4, 3/4) and (1/2, 1/2) of asked classes 1 and 0; a third judge is sure and wrong on fakes."""
    label = torch.tensor([1, 0])
    real = Judgement(torch.zeros(2), class_logits=torch.tensor([[0.0, LOG3], [2.0, 2.0]]))
    fake = Judgement(torch.zeros(2), class_logits=torch.tensor([[LOG3, 0.0], [0.0, LOG3]]))
    turn: Any = SimpleNamespace(real_judgement=real, fake_judgement=fake, condition=condition_of(label))
    assert number(terms.class_of_real(turn)) == pytest.approx(-0.5 * (math.log(3 / 4) + math.log(1 / 2)), abs=1e-6)
    assert number(terms.class_of_fake(turn)) == pytest.approx(-math.log(1 / 4), abs=1e-6)


def test_r1_of_a_linear_discriminator_is_half_its_squared_weight() -> None:
    judge = Linear([3.0, 4.0])
    turn = turn_of(judge, torch.randn(5, 2), torch.randn(5, 2))
    value = penalties.r1_penalty(turn)
    value.backward()
    assert number(value) == pytest.approx(12.5)
    torch.testing.assert_close(judge.weight.grad, torch.tensor([3.0, 4.0]))  # d/dw of w²/2


def test_r1_is_taken_at_the_real_images_and_averaged() -> None:
    real = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    value = penalties.r1_penalty(turn_of(HalfSquare(), real, torch.full((2, 2), 100.0)))
    assert number(value) == pytest.approx(0.5 * (5 + 9) / 2)


def test_gradient_penalty_of_a_linear_discriminator() -> None:
    """(|w| - 1)² = 16 at |w| = 5, with gradient 2 (|w| - 1) w / |w|."""
    judge = Linear([3.0, 4.0])
    value = penalties.gradient_penalty(turn_of(judge, torch.randn(5, 2), torch.randn(5, 2)))
    value.backward()
    assert number(value) == pytest.approx(16.0, rel=1e-5)
    torch.testing.assert_close(judge.weight.grad, torch.tensor([4.8, 6.4]))


def test_gradient_penalty_is_finite_where_the_gradient_vanishes() -> None:
    judge = Linear([0.0, 0.0])
    value = penalties.gradient_penalty(turn_of(judge, torch.randn(5, 2), torch.randn(5, 2)))
    value.backward()
    assert number(value) == pytest.approx(1.0, abs=1e-4)
    assert judge.weight.grad is not None and torch.isfinite(judge.weight.grad).all()


def test_gradient_penalty_looks_between_each_real_and_its_fake() -> None:
    """One share an image for all its voxels, uniform over [0, 1], from the training's own generator."""
    real, fake = torch.zeros(2000, 2), torch.tensor([1.0, 10.0]).repeat(2000, 1)
    judge = Linear([1.0, 1.0])
    before = torch.get_rng_state()
    penalties.gradient_penalty(turn_of(judge, real, fake))
    assert torch.equal(before, torch.get_rng_state())
    share = judge.seen[-1].detach() / fake
    torch.testing.assert_close(share[:, 0], share[:, 1])
    assert share.min() >= 0 and share.max() <= 1
    assert float(share[:, 0].mean()) == pytest.approx(0.5, abs=0.03)
    assert float(share[:, 0].var()) == pytest.approx(1 / 12, abs=0.01)


def test_penalties_are_float32_within_autocast() -> None:
    """At |w| = 1 + 1/1000 bf16 weights are 1, and the penalty would be 0."""
    judge = Linear([1.001, 0.0])
    bf16 = autocast(Hardware("cpu", "bf16"))
    turn = turn_of(judge, torch.randn(5, 2), torch.randn(5, 2), autocast=bf16)
    with bf16:
        assert number(penalties.gradient_penalty(turn)) == pytest.approx(1e-6, rel=0.01)
        assert number(penalties.r1_penalty(turn)) == pytest.approx(0.501, abs=1e-5)


def stepping(judge: nn.Module, player: Player) -> Stepper:
    nets = {"discriminator": judge, "generator": Given(torch.zeros(4, 2))}
    return Stepper(nets, Recipe((player,), NoiseTurn))


def difference_turn(judge: nn.Module) -> NoiseTurn:
    """Real minus fake is (2, -1) on the mean, and so the Wasserstein loss falls along (2, -1)."""
    return turn_of(judge, torch.tensor([[2.0, 0.0]] * 4), torch.tensor([[0.0, 1.0]] * 4))


def test_rmsprop_steps_and_clips() -> None:
    """First step of RMSprop: g / sqrt(0.01 g²) = 10 times the sign of the gradient, whatever its size."""
    loss = (Weighted("wasserstein", terms.wasserstein_discriminator),)
    for clip, expected in ((None, [0.503, 0.197]), (0.3, [0.3, 0.197]), (0.1, [0.1, 0.1])):
        judge = Linear([0.5, 0.2])
        settings = OptimizerSettings(lr=3e-4, kind="rmsprop", clip=clip)
        player = Player("discriminator", ("discriminator",), loss, settings)
        stepping(judge, player).move(player, [difference_turn(judge)], 1, 0)
        torch.testing.assert_close(judge.weight.detach(), torch.tensor(expected), atol=1e-6, rtol=0)


def test_clipping_is_of_the_moving_player_alone() -> None:
    judge = Linear([0.5, 0.2])
    loss = (Weighted("wasserstein", terms.wasserstein_discriminator),)
    player = Player("discriminator", ("discriminator",), loss, OptimizerSettings(1e-6, kind="rmsprop", clip=0.01))
    stepper = stepping(judge, player)
    stepper.move(player, [difference_turn(judge)], 1, 0)
    assert float(judge.weight.detach().abs().max()) <= 0.01
    assert float(stepper.nets["generator"].gain.detach()) == 1.0


def test_a_lazy_term_comes_every_kth_step_and_k_times_as_strong() -> None:
    """R1 of weight 3 every fourth step: 3 · 4 · 12.5 at steps 0 and 4; over 8 steps the gradients are as if always."""
    plain, lazy = (Weighted("r1", penalties.r1_penalty, 3.0, every) for every in (1, 4))
    sums = {}
    for weighted in (plain, lazy):
        judge = Linear([3.0, 4.0])
        loss = Weighted("wasserstein", terms.wasserstein_discriminator)
        player = Player("discriminator", ("discriminator",), (loss, weighted), OptimizerSettings(1e-12))
        stepper, total = stepping(judge, player), torch.zeros(2)
        for step in range(8):
            figures = stepper.move(player, [difference_turn(judge)], 1, step)
            assert ("discriminator.r1" in figures) is (step % weighted.every == 0)
            if step == 4:
                assert float(figures["discriminator.r1"]) == pytest.approx(37.5 * weighted.every)
                assert float(figures["discriminator"]) == pytest.approx(37.5 * weighted.every - 2.0)
            assert judge.weight.grad is not None
            total += judge.weight.grad
        sums[weighted.every] = total
    torch.testing.assert_close(sums[4], sums[1])
    torch.testing.assert_close(sums[1], 8 * (3 * torch.tensor([3.0, 4.0]) - torch.tensor([2.0, -1.0])))


def test_the_wasserstein_estimate_is_logged_when_the_critic_moved() -> None:
    judge = Linear([3.0, 4.0])
    turn = turn_of(judge, torch.tensor([[2.0, 0.0]] * 4), torch.tensor([[0.0, 1.0]] * 4), WassersteinTurn)
    assert float(turn.figures()["wasserstein_estimate"]) == pytest.approx(3 * 2 - 4 * 1)
    generators = WassersteinTurn(turn.context, turn.batches, ("generator",))
    assert generators.figures() == {}


def built(name: str, size: tuple[int, ...] = (12, 12), **changes: Any) -> tuple[dict[str, nn.Module], Recipe]:
    widths = {"latent_dim": 6, "embedding_dim": 4, "generator_width": 4, "discriminator_width": 4}
    config = validate_gan({"family": name} | widths | changes)
    return FAMILIES[name].build(config, ImageShape(size, 1, 3, len(config.attributes)))


def composition(recipe: Recipe) -> dict[str, list[tuple[str, float]]]:
    return {player.name: [(part.name, part.weight) for part in player.terms] for player in recipe.players}


def test_families_are_composed_as_their_papers_say() -> None:
    logistic = {"discriminator": [("logistic", 1.0)], "generator": [("non_saturating", 1.0)]}
    wasserstein = {"discriminator": [("wasserstein", 1.0)], "generator": [("wasserstein", 1.0)]}
    for name in ("gan", "dcgan", "cgan"):
        assert composition(built(name)[1]) == logistic, name
    assert composition(built("wgan")[1]) == wasserstein
    assert composition(built("wgan-gp", gradient_penalty=7.0)[1]) == wasserstein | {
        "discriminator": [("wasserstein", 1.0), ("gradient_penalty", 7.0)]
    }
    classes = ("class_of_real", 1.0), ("class_of_fake", 1.0)
    auxiliary = composition(built("cgan", conditioning="auxiliary")[1])
    assert auxiliary["discriminator"] == [("logistic", 1.0), *classes]
    assert auxiliary["generator"] == [("non_saturating", 1.0), classes[1]]
    for name in ("wgan", "wgan-gp"):
        recipe = built(name, discriminator_steps=4)[1]
        assert recipe.turn is WassersteinTurn and [player.repeats for player in recipe.players] == [4, 1]
    kinds = [(player.optimizer.kind, player.optimizer.clip) for player in built("wgan", clip=0.02)[1].players]
    assert kinds == [("rmsprop", 0.02), ("rmsprop", None)]


def test_dcgan_smooths_by_its_real_target() -> None:
    for target in (0.9, 0.7):
        term = built("dcgan", real_target=target)[1].players[0].terms[0].term
        expected = target * math.log(4 / 3) + (1 - target) * math.log(4) + math.log(2)
        assert number(term(logits([LOG3], [0.0]))) == pytest.approx(expected, abs=1e-6)


def kinds_of(net: nn.Module) -> set[str]:
    return {type(module).__name__ for module in net.modules()}


@pytest.mark.parametrize(("size", "dims"), [((12, 12), 2), ((8, 9, 10), 3)])
def test_networks_are_of_their_kind(size: tuple[int, ...], dims: int) -> None:
    perceptrons, _ = built("gan", size)
    for net in perceptrons.values():
        assert kinds_of(net) <= {type(net).__name__, "ConditionCode", "Embedding", "ModuleList", "Linear"}
    dcgan, _ = built("dcgan", size)
    assert {f"ConvTranspose{dims}d", f"BatchNorm{dims}d"} <= kinds_of(dcgan["generator"])
    assert {f"Conv{dims}d", f"BatchNorm{dims}d"} <= kinds_of(dcgan["discriminator"])
    assert f"Conv{dims}d" not in kinds_of(dcgan["generator"])


@pytest.mark.parametrize("name", ["gan", "cgan", "wgan", "wgan-gp"])
def test_these_discriminators_judge_each_image_by_itself(name: str) -> None:
    """Batch norm would mix them, and a gradient penalty an image would mean nothing."""
    judge = built(name)[0]["discriminator"].train()
    images, condition = torch.randn(4, 1, 12, 12), condition_of(torch.tensor([0, 1, 2, 0]))
    alone = judge(images[:1], condition_of(torch.tensor([0]))).logits
    torch.testing.assert_close(judge(images, condition).logits[:1], alone, atol=1e-5, rtol=1e-4)
    mixed = built("dcgan")[0]["discriminator"].train()
    alone = mixed(images[:2], condition_of(torch.tensor([0, 1]))).logits
    assert not torch.allclose(mixed(images, condition).logits[:2], alone, atol=1e-5)


@pytest.mark.parametrize("size", [(12, 13), (8, 9, 10)])
def test_conditioning_reaches_the_judgement_in_its_own_way(size: tuple[int, ...]) -> None:
    images = torch.randn(2, 1, *size)
    ways: dict[str, Any] = {"concat": (True, None), "projection": (True, None), "auxiliary": (False, (2, 3))}
    for way, (depends, class_shape) in ways.items():
        judge = StridedDiscriminator(ImageShape(size, 1, 3, num_attributes=1), width=4, conditioning=way).eval()
        one, other, old = (
            judge(images, Condition(torch.tensor(label), attributes=torch.full((2, 1), age)))
            for label, age in (([0, 1], 0.0), ([1, 2], 0.0), ([0, 1], 3.0))
        )
        assert (not torch.equal(one.logits, other.logits)) is depends, way
        assert not torch.equal(one.logits, old.logits), way
        assert (None if one.class_logits is None else tuple(one.class_logits.shape)) == class_shape, way


def test_perceptrons_for_volumes_stay_below_a_gigabyte() -> None:
    """Weights, gradients and Adam's two moments of both nets in float32, and the generator's running mean."""
    with torch.device("meta"):
        nets, _ = built("gan", (32, 32, 32), generator_width=16, discriminator_width=16)
    sizes = {name: sum(weight.numel() for weight in net.parameters()) for name, net in nets.items()}
    assert 4 * (5 * sizes["generator"] + 4 * sizes["discriminator"]) < 1e9
