"""SSGAN and S3GAN: the K + 1 classes, feature matching, pseudo-labels and rotations, against plain forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.semi_supervision import RotationTurn, class_of_labelled, feature_matching
from pipeline.adversarial.terms import logistic_discriminator
from pipeline.config.augment import AugmentConfig
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import Condition, Judgement, condition_of
from pipeline.nets.semi_supervised import (
    ClassifyingDiscriminator,
    PseudoLabellingDiscriminator,
    known_or_guessed,
    quarter_turns,
    rotated,
)
from pipeline.nets.sizes import ImageShape

PLAIN = AugmentConfig(brightness=0, contrast=0, shift=0, rotate_degrees=0, scale=0, noise=0).model_dump()
SHAPE = ImageShape((12, 12), 1, 3)
FAMILIES = ("ssgan", "s3gan")


def training_of(family: str, labels: Tensor, size: tuple[int, ...] = (12, 12), **changes: Any) -> GanTraining:
    """A training on noise whose class 1 is bright; `labels` are those that are told."""
    values = {
        "family": family, "num_images": 10_000, "batch_size": 8, "latent_dim": 6, "embedding_dim": 4,
        "generator_width": 4, "discriminator_width": 4, "augment": PLAIN,
    }  # fmt: skip
    random = torch.Generator().manual_seed(1)
    bright = 100 * (torch.arange(len(labels)) % 2).view(-1, *[1] * (len(size) + 1))
    stored = (torch.randint(0, 120, (len(labels), 1, *size), generator=random) + bright).to(torch.uint8)
    images = StoredImages(stored, labels, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))
    return assemble(validate_gan(values | changes), images, ImageShape(size, 1, 2), Hardware("cpu", "float32"), seed=3)


def few_labels(num: int = 24, told: int = 4) -> Tensor:
    number = torch.arange(num)
    return torch.where(number < told, number % 2, -1)


def judgements(class_logits: Tensor) -> Judgement:
    return Judgement(class_logits.logsumexp(dim=1), class_logits)


def test_k_logits_are_a_softmax_over_k_plus_one_classes_with_the_fakes_logit_at_zero() -> None:
    net = ClassifyingDiscriminator(SHAPE, width=4).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net.classify.bias.copy_(torch.randn(3, generator=random))
        real, fake = (net(torch.randn(9, 1, 12, 12, generator=random), Condition()) for _ in range(2))
    extended = [torch.cat([one.class_logits, torch.zeros(9, 1)], dim=1).double().softmax(dim=1) for one in (real, fake)]
    p_real, p_fake = extended
    torch.testing.assert_close(real.logits.sigmoid().double(), 1 - p_real[:, 3])
    expected = -(1 - p_real[:, 3]).log().mean() - p_fake[:, 3].log().mean()
    turn: Any = SimpleNamespace(real_logits=real.logits, fake_logits=fake.logits)
    assert logistic_discriminator(turn).item() == pytest.approx(expected.item(), rel=1e-5)
    label = torch.tensor([0, 1, 2] * 3)
    known_real = p_real[torch.arange(9), label] / (1 - p_real[:, 3])  # p(class | image, image is real)
    turn = SimpleNamespace(labelled_judgement=real, condition=condition_of(label))
    assert class_of_labelled(turn).item() == pytest.approx(-known_real.log().mean().item(), rel=1e-6)


def matching(real: Tensor, shares: Tensor, fake: Tensor, asked: Tensor) -> float:
    """feature_matching of real features under class probabilities `shares`, and fakes of classes `asked`."""
    turn: Any = SimpleNamespace(
        real_judgement=Judgement(torch.zeros(len(real)), shares.log(), (real,)),
        fake_judgement=Judgement(torch.zeros(len(fake)), None, (fake,)),
        condition=condition_of(asked),
    )
    return feature_matching(turn).item()


def test_feature_matching_with_one_class_is_that_of_the_paper() -> None:
    random = torch.Generator().manual_seed(0)
    real, fake = torch.randn(5, 3, 2, 2, generator=random), torch.randn(4, 3, 2, 2, generator=random)
    expected = (real.mean(dim=0) - fake.mean(dim=0)).square().mean().item() / real.var().item()
    assert matching(real, torch.ones(5, 1), fake, torch.zeros(4)) == pytest.approx(expected, rel=1e-5)


def test_feature_matching_goes_class_by_class() -> None:
    real = torch.tensor([[1.0, 0.0], [3.0, 0.0], [10.0, 4.0]])
    shares = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # means (2, 0) and (10, 4)
    fake = torch.tensor([[2.0, 1.0], [2.0, 1.0], [9.0, 4.0], [7.0, 4.0]])  # means (2, 1) and (8, 4)
    both, variance = torch.tensor([0, 0, 1, 1]), 14.4  # of 1, 0, 3, 0, 10, 4: mean 3, squares 72 over 5
    assert matching(real, shares, fake, both) == pytest.approx((1 / 2 + 4 / 2) / 2 / variance)
    assert matching(real, shares, fake[:2], both[:2]) == pytest.approx(1 / 2 / variance)  # class 1 was not asked for
    half = torch.tensor([[0.5, 0.5]] * 3)  # a discriminator that does not know: both classes are matched to one mean
    centre = real.mean(dim=0)
    first, second = ((centre - mean).square().mean().item() for mean in (fake[:2].mean(dim=0), fake[2:].mean(dim=0)))
    assert matching(real, half, fake, both) == pytest.approx((first + second) / 2 / variance)


def test_pseudo_labels_are_the_likeliest_classes_and_known_labels_stay() -> None:
    class_logits = torch.tensor([[0.1, 2.0, 1.0], [5.0, 1.0, 1.0], [0.0, 0.0, 3.0]], requires_grad=True)
    found = known_or_guessed(torch.tensor([-1, 2, -1]), class_logits)
    assert found.tolist() == [1, 2, 2] and not found.requires_grad


def test_an_image_without_a_label_is_judged_under_its_pseudo_label() -> None:
    net = PseudoLabellingDiscriminator(SHAPE, width=4).eval()
    images = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    hidden = net(images, condition_of(torch.full((16,), -1)))
    guessed = hidden.class_logits.argmax(dim=1)
    assert len(guessed.unique()) > 1
    torch.testing.assert_close(hidden.logits, net(images, condition_of(guessed)).logits)
    other = net(images, condition_of((guessed + 1) % 3)).logits
    assert not torch.isclose(hidden.logits, other, rtol=1e-4, atol=1e-6).any()
    hidden.logits.sum().backward()
    assert all(weight.grad is None for weight in net.classify.parameters())


@pytest.mark.parametrize("size", [(6, 6), (6, 6, 4)])
def test_rotations_are_those_of_rot90_in_the_first_two_axes(size: tuple[int, ...]) -> None:
    images = torch.randn(8, 2, *size, generator=torch.Generator().manual_seed(0))
    choice = torch.tensor([3, 0, 1, 2, 2, 1, 0, 3])
    turned = rotated(images, choice, quarter_turns(size))
    for image, found, quarters in zip(images, turned, choice.tolist(), strict=True):
        torch.testing.assert_close(found, torch.rot90(image, quarters, dims=(1, 2)), atol=0, rtol=0)


@pytest.mark.parametrize("size", [(6, 4), (6, 4, 6)])
def test_unequal_sides_allow_half_turns_only(size: tuple[int, ...]) -> None:
    assert quarter_turns(size) == (0, 2)
    images = torch.randn(2, 1, *size)
    turned = rotated(images, torch.tensor([0, 1]), (0, 2))
    torch.testing.assert_close(turned[0], images[0], atol=0, rtol=0)
    torch.testing.assert_close(turned[1], images[1].flip(1, 2), atol=0, rtol=0)


@pytest.mark.parametrize(("size", "rotations"), [((12, 12), 4), ((12, 10), 2), ((8, 8, 10), 4)])
def test_the_rotation_task_asks_for_the_turn_that_was_made(
    size: tuple[int, ...], rotations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_of("s3gan", few_labels(), size, batch_size=16)
    turn: RotationTurn = training.turn(training.recipe.players[0])  # type: ignore[assignment]
    shown: list[Tensor] = []
    monkeypatch.setattr(
        training.context.nets["discriminator"],
        "rotation_logits",
        lambda images: shown.append(images) or torch.zeros(len(images), rotations),
    )
    for logits, target in (turn.real_rotation, turn.fake_rotation):
        assert logits.shape == (16, rotations) and len(target.unique()) > 1
    for seen, upright, target in zip(
        shown, (turn.unlabelled.images, turn.fake), (turn.real_rotation[1], turn.fake_rotation[1]), strict=True
    ):
        for image, before, number in zip(seen, upright, target.tolist(), strict=True):
            torch.testing.assert_close(image, torch.rot90(before, number * 4 // rotations, dims=(1, 2)))


def test_half_of_the_streams_hides_its_labels_and_fakes_are_of_the_labelled_classes() -> None:
    for labels in (few_labels(), torch.arange(24) % 2):
        training = training_of("s3gan", labels)
        turn: Any = training.turn(training.recipe.players[0])
        assert (turn.unlabelled.label == -1).all()
        assert sorted(turn.condition.label.tolist()) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_discriminators_terms_are_the_plain_losses(family: str) -> None:
    """Values of the terms against losses that are written out, on the same batches, with nets in the same state."""
    training, plain = (training_of(family, few_labels(), labelling=0.2, rotation=0.5) if family == "s3gan" else
                       training_of(family, few_labels()) for _ in range(2))  # fmt: skip
    player = training.recipe.players[0]
    figures = training.stepper.move(player, [training.turn(player)], 1, 0)
    nets, draws = plain.context.nets, plain.context.draws
    for net in nets.values():
        net.train()
    labelled, unlabelled = plain.streams["labelled"].next(), plain.streams["unlabelled"].next()
    with torch.no_grad(), parametrize.cached():
        judge = nets["discriminator"]
        real = judge(unlabelled.images, condition_of(unlabelled.label))
        fake_images = nets["generator"](draws.randn((8, 6)), condition_of(labelled.label))
        fake = judge(fake_images, condition_of(labelled.label))
        told = judge(labelled.images, condition_of(labelled.label)).class_logits
    if family == "ssgan":
        extended = [torch.cat([one.class_logits, torch.zeros(8, 1)], dim=1).log_softmax(dim=1) for one in (real, fake)]
        loss = -extended[0][:, :2].logsumexp(dim=1).mean() - extended[1][:, 2].mean()
        name, weight = "logistic", 1.0
    else:
        loss = (1 - real.logits).clamp(min=0).mean() + (1 + fake.logits).clamp(min=0).mean()
        name, weight = "hinge", 0.2
        assert "discriminator.rotation" in figures
    assert float(figures[f"discriminator.{name}"]) == pytest.approx(loss.item(), abs=1e-5)
    expected = weight * cross_entropy(told, labelled.label).item()
    assert float(figures["discriminator.class"]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_few_labels_are_enough_to_name_the_others(family: str) -> None:
    """4 labelled images and 20 without a label: the class head learns the classes of all, and nothing is made NaN."""
    training = training_of(family, few_labels(), discriminator_lr=5e-3)
    train(training, 8 * 60, lambda _: None)
    stream = training.streams["unlabelled"].images
    images = stream.scaling.to_model(stream.stored)
    with torch.no_grad():
        judgement = training.context.nets["discriminator"](images, condition_of(stream.label))
    truth = (images.mean(dim=(1, 2, 3)) > 0.0).long()
    assert 0 < truth.sum() < len(truth)
    assert (judgement.class_logits.argmax(dim=1) == truth).float().mean() >= 0.9
    assert all(torch.isfinite(value).all() for value in training.figures.values())
