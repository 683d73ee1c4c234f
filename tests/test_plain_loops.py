"""Short trainings of two families against plain loops, written out with nothing of the product's loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.loop import GanTraining, train
from pipeline.config.families import validate_gan
from pipeline.config.gan import GanConfig
from pipeline.core.compute import Hardware
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import condition_of
from pipeline.nets.sizes import ImageShape

BATCH, STEPS = 4, 3
sizes = pytest.mark.parametrize("size", [(12, 12), (8, 9, 10)])


def settings(family: str) -> GanConfig:
    widths = {"generator_width": 4, "discriminator_width": 4, "latent_dim": 6, "embedding_dim": 4}
    return validate_gan({"family": family, "batch_size": BATCH, **widths})


def fresh(config: GanConfig, size: tuple[int, ...]) -> GanTraining:
    random = torch.Generator().manual_seed(1)
    stored = torch.randint(0, 255, (12, 1, *size), generator=random, dtype=torch.uint8)
    images = StoredImages(stored, torch.arange(12) % 2, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))
    return assemble(config, images, ImageShape(size, 1, 2), Hardware("cpu", "float32"), seed=3)


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def assert_equal(
    ours: GanTraining, plain: GanTraining, losses: dict[str, list[float]], curve: list[dict[str, float]]
) -> None:
    for player, values in losses.items():
        assert [row[player] for row in curve] == pytest.approx(values, abs=1e-5, rel=1e-4)
    for name, net in plain.context.nets.items():
        for mine, theirs in zip(ours.context.nets[name].parameters(), net.parameters(), strict=True):
            if mine.ndim > 1:
                torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def curve_of(training: GanTraining) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    train(
        training,
        STEPS * training.images_per_step,
        lambda state: rows.append({name: float(state.figures[name]) for name in ("discriminator", "generator")}),
    )
    return rows


@sizes
def test_dcgan(size: tuple[int, ...]) -> None:
    config: Any = settings("dcgan")
    ours, plain = fresh(config, size), fresh(config, size)
    curve = curve_of(ours)
    draws, augment, stream = plain.context.draws, plain.context.augment, plain.streams["labelled"]
    generator, discriminator = plain.context.nets["generator"], plain.context.nets["discriminator"]
    optim_d = torch.optim.Adam(discriminator.parameters(), lr=config.discriminator_lr, betas=(0.5, 0.999))
    optim_g = torch.optim.Adam(generator.parameters(), lr=config.generator_lr, betas=(0.5, 0.999))
    losses: dict[str, list[float]] = {"discriminator": [], "generator": []}
    ones = torch.ones(BATCH)
    for _ in range(STEPS):
        batch = stream.next()
        condition = condition_of(batch.label)
        real = discriminator(augment(batch.images, draws), condition).logits
        fake = generator(draws.randn((BATCH, 6)), condition).detach()
        judged = discriminator(augment(fake, draws), condition).logits
        loss = binary_cross_entropy_with_logits(real, config.real_target * ones)
        losses["discriminator"].append(step(optim_d, loss + binary_cross_entropy_with_logits(judged, 0 * ones)))
        condition = condition_of(stream.next().label)
        fake = generator(draws.randn((BATCH, 6)), condition)
        judged = discriminator(augment(fake, draws), condition).logits
        losses["generator"].append(step(optim_g, binary_cross_entropy_with_logits(judged, ones)))
    assert_equal(ours, plain, losses, curve)


@sizes
def test_wgan_gp(size: tuple[int, ...]) -> None:
    config: Any = settings("wgan-gp")
    ours, plain = fresh(config, size), fresh(config, size)
    curve = curve_of(ours)
    draws, augment, stream = plain.context.draws, plain.context.augment, plain.streams["labelled"]
    generator, discriminator = plain.context.nets["generator"], plain.context.nets["discriminator"]
    optim_d = torch.optim.Adam(discriminator.parameters(), lr=config.discriminator_lr, betas=(0.0, 0.9))
    optim_g = torch.optim.Adam(generator.parameters(), lr=config.generator_lr, betas=(0.0, 0.9))
    losses: dict[str, list[float]] = {"discriminator": [], "generator": []}
    for _ in range(STEPS):
        for _ in range(config.discriminator_steps):
            batch = stream.next()
            condition = condition_of(batch.label)
            fake = augment(generator(draws.randn((BATCH, 6)), condition).detach(), draws)
            judged = discriminator(fake, condition).logits
            real = augment(batch.images, draws)
            loss = judged.mean() - discriminator(real, condition).logits.mean()
            share = draws.rand((BATCH, *[1] * (real.ndim - 1)))
            between = ((1 - share) * real + share * fake).requires_grad_()
            slope = torch.autograd.grad(discriminator(between, condition).logits.sum(), between, create_graph=True)[0]
            penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
            last = step(optim_d, loss + config.gradient_penalty * penalty)
        losses["discriminator"].append(last)
        condition = condition_of(stream.next().label)
        fake = generator(draws.randn((BATCH, 6)), condition)
        losses["generator"].append(step(optim_g, -discriminator(augment(fake, draws), condition).logits.mean()))
    assert_equal(ours, plain, losses, curve)
