"""CoGAN: pairs from one z, layers that are tied, and the sum of both domains' losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import GanTraining
from pipeline.config.augment import AugmentConfig
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware
from pipeline.core.errors import ConfigError
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import Condition
from pipeline.nets.coupled import CoupledGenerator, by_domain
from pipeline.nets.sizes import ImageShape

PLAIN = AugmentConfig(brightness=0, contrast=0, shift=0, rotate_degrees=0, scale=0, noise=0)


def training_of(size: tuple[int, ...] = (12, 12), **changes: Any) -> GanTraining:
    values = {
        "family": "cogan", "batch_size": 4, "latent_dim": 6, "embedding_dim": 4, "generator_width": 4,
        "discriminator_width": 4,
    }  # fmt: skip
    random = torch.Generator().manual_seed(1)
    images = StoredImages(
        stored=torch.randint(0, 255, (12, 1, *size), generator=random, dtype=torch.uint8),
        label=torch.arange(12) % 3,
        scaling=Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"),
    )
    shape = ImageShape(size, 1, 3, positive=(2,))
    return assemble(validate_gan(values | changes), images, shape, Hardware("cpu", "float32"), 3)


def sum_of_terms(player: Any, turn: Any) -> Tensor:
    return torch.stack([weighted.weight * weighted.term(turn) for weighted in player.terms]).sum()


def coupled(size: tuple[int, ...] = (16, 16)) -> CoupledGenerator:
    return CoupledGenerator(ImageShape(size, 1, 3, positive=(2,)), latent_dim=6, embedding_dim=4, width=4)


def asked_pair() -> tuple[Tensor, Condition, Condition]:
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    return z, Condition(label=torch.tensor([0, 1, 0, 1])), Condition(label=torch.full((4,), 2))


def test_a_pair_is_what_the_generator_makes_of_either_class_alone() -> None:
    net = coupled().eval()
    z, in_a, in_b = asked_pair()
    with torch.no_grad():
        first, second = net.pair(z, in_a, in_b)
        torch.testing.assert_close(net(z, in_a), first)
        torch.testing.assert_close(net(z, in_b), second)
        mixed = net(z, Condition(label=torch.tensor([0, 2, 0, 2])))
    torch.testing.assert_close(mixed, torch.stack([first[0], second[1], first[2], second[3]]))
    assert not torch.allclose(first, second)


def test_the_tied_layers_are_one_and_hear_from_both_domains() -> None:
    net = coupled((32, 32))
    z, in_a, in_b = asked_pair()
    tied = [net.start.weight, *net.trunk.parameters()]
    heads = [list(net.head_a.parameters()), list(net.head_b.parameters())]
    for image, own, other in zip(net.pair(z, in_a, in_b), heads, heads[::-1], strict=True):
        gradients = torch.autograd.grad(image.square().sum(), tied, retain_graph=True)
        assert all(float(gradient.abs().sum()) > 0 for gradient in gradients)
        reached = torch.autograd.grad(image.square().sum(), [*own, *other], retain_graph=True, allow_unused=True)
        assert all(gradient is not None for gradient in reached[: len(own)])
        assert all(gradient is None for gradient in reached[len(own) :])
    counted = sum(weight.numel() for weight in net.parameters())
    parts = (net.code, net.start, net.trunk, net.head_a, net.head_b)
    assert counted == sum(weight.numel() for part in parts for weight in part.parameters())


@pytest.mark.parametrize("size", [(12, 12), (8, 9, 10)])
def test_the_discriminators_share_all_but_their_first_layer(size: tuple[int, ...]) -> None:
    judge = training_of(size).context.nets["discriminator"]
    images = torch.randn(4, 1, *size, generator=torch.Generator().manual_seed(0))
    for label, own, other in ((0, judge.first_a, judge.first_b), (2, judge.first_b, judge.first_a)):
        judge.zero_grad()
        judge(images, Condition(label=torch.full((4,), label))).logits.sum().backward()
        first = [own.parametrizations.weight.original.grad, other.parametrizations.weight.original.grad]
        assert float(first[0].abs().sum()) > 0 and float(first[1].abs().sum()) == 0
        tied = [layer.parametrizations.weight.original.grad for layer in judge.tied]
        assert all(float(gradient.abs().sum()) > 0 for gradient in tied)


def test_a_coupled_turn_makes_pairs_from_one_z_and_sums_over_the_domains() -> None:
    training = training_of(augment=PLAIN)
    turns = {player.name: (player, training.turn(player)) for player in training.recipe.players}
    player, turn = turns["generator"]
    assert turn.fake.shape[0] == 8 and turn.z.shape == (4, 6)
    assert turn.condition.label[:4].max() < 2 and (turn.condition.label[4:] == 2).all()
    loss = sum_of_terms(player, turn)
    of_a, of_b = turn.fake_logits.detach().chunk(2)
    assert float(loss.detach()) == pytest.approx(-float(of_a.mean() + of_b.mean()), rel=1e-4)
    player, turn = turns["discriminator"]
    loss = sum_of_terms(player, turn)
    real, fake = turn.real_logits, turn.fake_logits
    plain = sum(
        (1 - real[half]).clamp(min=0).mean() + (1 + fake[half]).clamp(min=0).mean() for half in (slice(4), slice(4, 8))
    )
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-4)


def test_rows_come_back_in_their_order() -> None:
    in_b = torch.tensor([True, False, True, False, False])
    values = torch.arange(5.0)
    found = by_domain(in_b, lambda rows: -values[rows], lambda rows: 10 * values[rows])
    assert found.tolist() == [0, -1, 20, -3, -4]
    assert by_domain(in_b[:1], lambda rows: values[rows] / 0, lambda rows: values[rows] + 1).tolist() == [1]


@pytest.mark.parametrize("positive", [(), (0, 1, 2)])
@pytest.mark.parametrize("name", ["cyclegan", "cogan"])
def test_a_domain_without_classes_is_refused(name: str, positive: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"data\.positive"):
        FAMILIES[name].build(validate_gan({"family": name}), ImageShape((12, 12), 1, 3, positive=positive))
