"""DP-MERF: features of length 1 that make a kernel, one patient's part of the sum, its noise, and what is learned."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny_training import CLASSES, SIDE, config, steps, stored, tensors
from torch import Tensor

from pipeline.adversarial import assembly
from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.loop import GanTraining
from pipeline.adversarial.private.budget import Budget, one_look_budget
from pipeline.config.dp import DpConfig
from pipeline.core.compute import Hardware
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.fourier import COUNT_WEIGHT, SENSITIVITY, NoisyEmbedding
from pipeline.nets.sizes import ImageShape


def people(patients: int = 20, each: int = 3) -> StoredImages:
    return replace(stored(patients * each), patient=torch.arange(patients * each) // each)


def training_of(images: StoredImages, budget: Budget | None = None, **changes: object) -> GanTraining:
    shape = ImageShape((SIDE, SIDE), 1, CLASSES, positive=(2,))
    gan = config("dp-merf", features=200, **changes)
    return assemble(gan, images, shape, Hardware("cpu", "float32"), seed=3, budget=budget)


def embedding(training: GanTraining) -> NoisyEmbedding:
    net = training.context.nets["embedding"]
    assert isinstance(net, NoisyEmbedding)
    return net


def whole(net: NoisyEmbedding) -> Tensor:
    """Sums and weighted counts as the one vector that noise is put on."""
    return torch.cat([net.sums.flatten(), COUNT_WEIGHT * net.counts])


def test_features_have_length_one_and_are_the_mean_of_gaussian_kernels() -> None:
    bandwidths = (0.05, 0.3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = NoisyEmbedding((1, 6, 6), 2, 20_000, bandwidths)
    images = torch.rand((5, 1, 6, 6), generator=torch.Generator().manual_seed(1)) * 0.6
    found = net(images)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    squares = (images[:, None] - images[None]).flatten(2).square().mean(dim=2)
    kernel = torch.stack([torch.exp(-squares / (2 * one)) for one in bandwidths]).mean(dim=0)
    torch.testing.assert_close(found @ found.T, kernel, atol=0.04, rtol=0)


@pytest.mark.parametrize("each", [1, 3])
def test_one_patient_more_moves_the_sum_by_no_more_than_was_accounted_for(each: int) -> None:
    """Neighbouring data sets: any one patient left out, with images that are alike or as different as can be."""
    images = people(each=each)
    images.stored[:each] = torch.tensor([0, 255, 0], dtype=torch.uint8)[:each, None, None, None]
    for left_out in (0, 7):
        kept = torch.nonzero(images.patient != left_out).squeeze(1)
        with_him, without = (whole(embedding(training_of(one))) for one in (images, images.part(kept)))
        assert 0 < float((with_him - without).norm()) <= SENSITIVITY * (1 + 1e-5)
    single = people(each=1)
    kept = torch.nonzero(single.patient != 0).squeeze(1)
    moved = whole(embedding(training_of(single))) - whole(embedding(training_of(single.part(kept))))
    assert float(moved.norm()) == pytest.approx(SENSITIVITY, rel=1e-4), "the bound is reached"


def test_a_patient_with_many_images_counts_as_one() -> None:
    net = embedding(training_of(people(patients=20, each=3)))
    assert float(net.counts.sum()) == pytest.approx(20)
    torch.testing.assert_close(net.means.norm(dim=1) <= 1 + 1e-5, torch.ones(CLASSES, dtype=torch.bool))


def test_noise_has_the_spread_that_was_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "secret_seed", lambda: 5)
    budget = one_look_budget(DpConfig(epsilon=2, delta=1e-5), 20, SENSITIVITY)
    plain = embedding(training_of(people()))
    noisy = embedding(training_of(people(), budget, dp={"epsilon": 2, "delta": 1e-5}))
    noise = whole(noisy) - whole(plain)
    assert float(noise.std()) == pytest.approx(budget.noise * SENSITIVITY, rel=0.1)
    assert budget.looks == 1 and budget.spent()["epsilon"] == pytest.approx(2, abs=1e-3)


def test_after_the_look_images_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_of(people(), one_look_budget(DpConfig(epsilon=2), 20, SENSITIVITY), dp={"epsilon": 2})

    def read(*_: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(StoredImages, "batch", read)
    steps(training, 2)
    assert training.budget is not None and training.budget.looks == 1


def test_a_killed_training_goes_on_with_the_noise_that_it_had() -> None:
    budget = one_look_budget(DpConfig(epsilon=2), 20, SENSITIVITY)
    first, second = (training_of(people(), replace(budget), dp={"epsilon": 2}) for _ in range(2))
    steps(first, 2)
    assert not torch.equal(embedding(first).sums, embedding(second).sums), "noise is nobody's"
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for training in (first, second):
        steps(training, 2)
    one, other = tensors(first.state_dict()), tensors(second.state_dict())
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_generator_moves_towards_the_mean_embedding() -> None:
    """Without noise, of images of one grey level a class: the classes' brightness is learned."""
    images = replace(people(each=1), stored=(90 * (torch.arange(20) % CLASSES)).to(torch.uint8).view(-1, 1, 1, 1))
    images = replace(images, stored=images.stored.expand(-1, 1, SIDE, SIDE).contiguous())
    training = training_of(images, num_images=8 * 300, bandwidths=(0.3,), generator_lr=5e-3)
    steps(training, 250)
    turn = training.turn(training.recipe.players[0])
    with torch.no_grad():
        grey = [float(turn.fake[turn.condition.label == one].mean()) for one in range(CLASSES)]  # type: ignore[attr-defined]
    assert grey == pytest.approx([-1, 180 / 255 - 1, 360 / 255 - 1], abs=0.25)
