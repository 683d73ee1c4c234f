"""Detectors that restore an image: their losses by hand, and what they find."""

from __future__ import annotations

import math

import pytest
import torch
from detecting import BUDGET, SHAPES, normal_tensor, normals_of, planted_tensor, setting_of
from torch import Tensor

from pipeline.anomaly.detectors import DETECTORS, ae_u
from pipeline.anomaly.detectors.dae import coarse_noise
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.core.errors import NonFiniteLoss
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import DenoisingPyramid
from pipeline.nets.sizes import ImageShape
from pipeline.supervised.unlabelled import divergence, minus_evidence

NAMES = ("ae", "vae", "dae", "ae-u")


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def test_the_divergence_is_that_of_torchs_distributions() -> None:
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    own = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    expected = torch.distributions.kl_divergence(own, standard).sum(dim=1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_the_bound_is_the_gaussian_log_likelihood_without_its_constant() -> None:
    images, decoded = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    code = torch.zeros(2, 3)
    found = minus_evidence(images, decoded, code, code)
    likelihood = torch.distributions.Normal(decoded, 0.1).log_prob(images).flatten(1).mean(dim=1)
    constant = -math.log(0.1 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, constant - likelihood, rtol=1e-4, atol=1e-4)


def test_uncertain_voxels_count_less(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = DETECTORS["ae-u"].make(setting_of(2))
    images = torch.zeros(1, 1, *SHAPES[2])
    parts = torch.full_like(images, 0.5), torch.zeros_like(images)
    parts[1][..., 0] = math.log(4)  # a standard deviation of 2 in the first column
    monkeypatch.setattr(ae_u.UncertainAutoencoder, "_parts", lambda self, images: parts)
    found = detector.map(images)
    assert found is not None
    assert found[0, :, 0].tolist() == pytest.approx([0.0625] * 16) and found[0, :, 1].tolist() == [0.25] * 16


@pytest.mark.parametrize("shape", [(4, 1, 64, 48), (4, 1, 32, 24, 40)])
def test_coarse_noise_is_coarse_and_of_the_right_strength(shape: tuple[int, ...]) -> None:
    noise = torch.cat([coarse_noise(torch.Size(shape), draws(seed)) for seed in range(20)])
    assert 0.08 < noise.std() < 0.2  # interpolation takes some of the 0.2 away
    beside = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert beside > 0.9  # neighbours are alike; white noise would give 0


@pytest.mark.parametrize("size", [(16, 16), (18, 13), (9, 8, 11)])
def test_the_pyramid_gives_back_images_of_any_size(size: tuple[int, ...]) -> None:
    net = DenoisingPyramid(ImageShape(size, 1, 2), width=4)
    assert net(torch.zeros(2, 1, *size)).shape == (2, 1, *size)


@pytest.mark.parametrize("name", NAMES)
def test_a_bright_square_is_not_restored(name: str) -> None:
    """After some training on slopes, images with a square are ranked above all others, whose seed changes nothing."""
    longer = BUDGET.model_copy(update={"steps": 150, "width": 8})
    detector, again = (DETECTORS[name].make(setting_of(2, config=longer)) for _ in range(2))
    for one in (detector, again):
        one.fit(normals_of(2))
    normal, planted = detector.score(normal_tensor(2)), detector.score(planted_tensor(2))
    assert planted.min() > normal.max()
    assert torch.equal(planted, again.score(planted_tensor(2)))


def test_a_loss_that_is_not_finite_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Reconstruction, images: Tensor, draws: Draws) -> Tensor:
        return images.mean() * self.net(images).mean() * float("nan")

    monkeypatch.setattr(Reconstruction, "loss", broken)
    with pytest.raises(NonFiniteLoss, match="the autoencoder"):
        DETECTORS["ae"].make(setting_of(2)).fit(normals_of(2))
