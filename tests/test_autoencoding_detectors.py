"""Detectors that restore an image: their losses by hand, and what they find."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from detecting import (
    BUDGET,
    CPU,
    SHAPES,
    data_set,
    normal_tensor,
    normals_of,
    planted_tensor,
    setting_of,
    smooth_images,
)
from torch import Tensor, nn

from pipeline.anomaly.detector import ImageSet, Normals, Setting
from pipeline.anomaly.detectors import DETECTORS, ae_u, vae, vae_restoration
from pipeline.anomaly.detectors.dae import coarse_noise
from pipeline.anomaly.detectors.feature_ae import similarity
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.core.errors import NonFiniteLoss
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import DenoisingPyramid
from pipeline.nets.feature_maps import EffNetMaps
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


def test_the_bound_is_the_gaussian_log_likelihood_less_the_divergence_without_its_constant() -> None:
    images, decoded = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    mean, log_variance = torch.randn(2, 3), torch.randn(2, 3)
    found = minus_evidence(images, decoded, mean, log_variance)
    likelihood = torch.distributions.Normal(decoded, 0.1).log_prob(images).flatten(1).sum(dim=1)
    own = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    apart = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    constant = -math.log(0.1 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, constant - (likelihood - apart) / 16, rtol=1e-4, atol=1e-4)


class Halves(nn.Module):
    """An encoder that gives every image the same mean and variance of its code."""

    def forward(self, images: Tensor) -> Tensor:
        mean, log_variance = torch.full((len(images), 4), 3.0), torch.full((len(images), 4), math.log(0.25))
        return torch.cat([mean, log_variance], dim=1)


class Decodes(nn.Module):
    """A decoder that remembers the codes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: list[Tensor] = []

    def forward(self, code: Tensor) -> Tensor:
        self.codes.append(code.detach())
        return torch.zeros(len(code), 1, *SHAPES[2])


def test_codes_are_drawn_in_training_and_are_the_mean_in_scoring() -> None:
    detector, images = DETECTORS["vae"].make(setting_of(2)), torch.zeros(500, 1, *SHAPES[2])
    detector.net.encoder, detector.net.decoder = Halves(), Decodes()
    detector.loss(images, draws())
    detector.score(images)
    detector.map(images[:1])
    drawn, *means = detector.net.decoder.codes
    assert abs(drawn.mean() - 3) < 0.05 and abs(drawn.std() - 0.5) < 0.05  # the root of 0.25; 2000 numbers
    assert drawn.unique().numel() == 2000
    for mean in means:
        assert (mean == 3).all()


def uncertain(decoded: Tensor, log_variance: Tensor) -> ae_u.UncertainAutoencoder:
    """The detector whose network gives these, whatever the images are."""

    class Says(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([decoded, log_variance], dim=1)

    detector = DETECTORS["ae-u"].make(setting_of(2))
    assert isinstance(detector, ae_u.UncertainAutoencoder)
    detector.net = Says()
    return detector


def test_the_uncertain_loss_is_the_gaussian_log_likelihood_without_its_constant() -> None:
    images, decoded, log_variance = (torch.randn(3, 1, *SHAPES[2]) for _ in range(3))
    likelihood = torch.distributions.Normal(decoded, (0.5 * log_variance).exp()).log_prob(images).mean()
    found = uncertain(decoded, log_variance).loss(images, draws())
    torch.testing.assert_close(found, -2 * likelihood - math.log(2 * math.pi))


def test_uncertain_voxels_count_less_but_no_less_than_in_any_normal_image() -> None:
    images = torch.zeros(1, 1, *SHAPES[2])
    decoded, log_variance = torch.full_like(images, 0.5), torch.zeros_like(images)
    log_variance[..., :2] = math.log(4)  # a standard deviation of 2 in the first two columns
    detector = uncertain(decoded, log_variance)
    ceiling = torch.full((1, *SHAPES[2]), math.log(100))
    ceiling[..., 1] = math.log(2)
    detector.keep(ceiling=ceiling)
    found = detector.map(images)[0]
    assert found[:, 0].tolist() == pytest.approx([0.0625] * 16) and found[:, 2].tolist() == [0.25] * 16
    assert found[:, 1].tolist() == pytest.approx([0.125] * 16)


def test_the_ceiling_is_the_highest_variance_of_any_training_image() -> None:
    detector, normals = DETECTORS["ae-u"].make(setting_of(2)), normals_of(2)
    detector.fit(normals)
    one_by_one = [detector.net(image[None])[0, 1:] for block in normals.train.blocks() for image in block]
    expected = torch.stack(one_by_one).amax(dim=0).clamp_min(-8)
    torch.testing.assert_close(detector.get_buffer("ceiling"), expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 1, 64, 48), (4, 1, 32, 24, 40)])
def test_coarse_noise_is_coarse_and_of_the_right_strength(shape: tuple[int, ...]) -> None:
    """16 values along an axis, 0.4 each: the paper's 0.2 of [0, 1]; interpolation takes some of it away."""
    noise = torch.cat([coarse_noise(torch.Size(shape), draws(seed)) for seed in range(20)])
    # between centres that are k voxels apart the shares of two values are (j + 1/2) / k, so that of the 0.4 the mean
    # root of a^2 + b^2 stays along each axis; in all about 2 / 3 of the variance an axis
    assert noise.std() == pytest.approx(0.4 * (2 / 3) ** (0.5 * (len(shape) - 2)), rel=0.12)
    beside = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert beside > 0.7  # neighbours are alike; white noise would give 0


class Told(Draws):
    """Draws whose whole numbers are told, axis by axis."""

    def __init__(self, shifts: tuple[int, ...]) -> None:
        super().__init__(torch.Generator().manual_seed(0))
        self.shifts, self.highest = list(shifts), list[int]()

    def randint(self, high: int, shape: Sequence[int]) -> Tensor:
        self.highest.append(high)
        return torch.tensor([self.shifts.pop(0)])


def test_coarse_noise_is_rolled_by_a_random_shift_along_each_axis() -> None:
    shape = torch.Size((2, 1, 24, 32))
    still, told = coarse_noise(shape, Told((0, 0))), Told((5, 20))
    rolled = coarse_noise(shape, told)
    assert told.highest == [24, 32]
    np.testing.assert_array_equal(rolled.numpy(), np.roll(still.numpy(), (5, 20), axis=(2, 3)))


def test_the_denoiser_is_shown_noisy_images_and_asked_for_the_clean_ones() -> None:
    class Shown(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            self.images = images
            return images + 0.25

    detector, images = DETECTORS["dae"].make(setting_of(2)), normal_tensor(2)
    assert isinstance(detector, Reconstruction)
    detector.net = Shown()
    loss = detector.loss(images, draws(3))
    noise = detector.net.images - images
    torch.testing.assert_close(noise, coarse_noise(images.shape, draws(3)), rtol=1e-3, atol=1e-6)
    assert noise.std() > 0.1
    torch.testing.assert_close(loss, (noise + 0.25).square().mean(), rtol=1e-4, atol=1e-6)
    detector.score(images)
    assert torch.equal(detector.net.images, images)  # no noise when images are scored


@pytest.mark.parametrize("size", [(16, 16), (18, 13), (9, 8, 11)])
def test_the_pyramid_gives_back_images_of_any_size(size: tuple[int, ...]) -> None:
    net = DenoisingPyramid(ImageShape(size, 1, 2), width=4)
    assert net(torch.zeros(2, 1, *size)).shape == (2, 1, *size)


def in_the_square(maps: Tensor) -> bool:
    """Whether each map [B, 16, 16] is highest in the square, which is in rows and columns 1 to 5."""
    place = maps.flatten(1).argmax(dim=1)
    rows, columns = place // 16, place % 16
    return bool(((rows >= 1) & (rows <= 5) & (columns >= 1) & (columns <= 5)).all())


@pytest.mark.parametrize("name", NAMES)
def test_a_bright_square_is_not_restored(name: str) -> None:
    """After some training on slopes, images with a square are ranked above all others, whose seed changes nothing."""
    longer = BUDGET.model_copy(update={"steps": 150, "width": 16 if name == "dae" else 8})
    detector, again = (DETECTORS[name].make(setting_of(2, config=longer)) for _ in range(2))
    for one in (detector, again):
        one.fit(normals_of(2))
    normal, planted = detector.score(normal_tensor(2)), detector.score(planted_tensor(2))
    assert planted.min() > normal.max()
    maps = detector.map(planted_tensor(2))
    assert maps is not None and in_the_square(maps)
    assert torch.equal(planted, again.score(planted_tensor(2)))


def twins(num: int = 6) -> Tensor:
    """The images of `planted_tensor` without their squares."""
    images = data_set(smooth_images(num, SHAPES[2], 9)).tensor(np.arange(num))
    changed = (planted_tensor(2, num) != images).flatten(2)
    assert changed.sum() == num * 25
    return images


def test_restoration_takes_the_square_away() -> None:
    detector = DETECTORS["vae-restoration"].make(
        setting_of(2, config=BUDGET.model_copy(update={"steps": 200, "width": 8}))
    )
    detector.fit(normals_of(2))
    assert isinstance(detector, vae_restoration.VaeRestoration)
    planted, clean = planted_tensor(2), twins()
    assert (detector.score(planted) > 1.1 * detector.score(clean)).all()
    assert in_the_square(detector.map(planted))
    restored = detector.restored(planted)
    assert (restored - planted)[..., 1:6, 1:6].mean() < -0.4  # the square is 90 of 127.5 brighter
    begun, ended = (detector.cost(planted, change) for change in (torch.zeros_like(planted), restored - planted))
    assert (ended < 0.2 * begun).all()
    torch.testing.assert_close(detector.map(planted)[:, None], (restored - planted).abs())
    one = torch.cat([detector.restored(image[None]) for image in planted])
    torch.testing.assert_close(one, restored, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_what_restoration_descends_is_the_bound_and_the_changes_total_variation(dims: int) -> None:
    detector = DETECTORS["vae-restoration"].make(setting_of(dims))
    assert isinstance(detector, vae_restoration.VaeRestoration)
    random = torch.Generator().manual_seed(0)
    images, change = normal_tensor(dims, 3), torch.randn(3, 1, *SHAPES[dims], generator=random)
    places = list(np.ndindex(*SHAPES[dims]))
    costs = detector.cost(images, change).tolist()
    for number, (cost, one) in enumerate(zip(costs, change[:, 0].numpy(), strict=True)):
        varied = 0.0
        for place in places:
            for axis in range(dims):
                beside = tuple(at + (axis == which) for which, at in enumerate(place))
                if beside[axis] < one.shape[axis]:
                    varied += math.hypot(one[beside] - one[place], 0.05) - 0.05
        bound = vae.VariationalAutoencoder.score(detector, (images + change)[number : number + 1]).item()
        assert cost == pytest.approx(bound * len(places) + 2 * varied, rel=1e-4)


def test_structural_similarity_is_that_of_the_paper() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 3, 7, 6)), random.normal(size=(2, 3, 7, 6))
    found = similarity(torch.tensor(first), torch.tensor(second)).numpy()
    for place in np.ndindex(*first.shape):
        row, column = place[2:]
        window = (*place[:2], slice(max(0, row - 2), row + 3), slice(max(0, column - 2), column + 3))
        one, other = first[window].ravel(), second[window].ravel()
        brightness = (2 * one.mean() * other.mean() + 0.0036) / (one.mean() ** 2 + other.mean() ** 2 + 0.0036)
        shape = (2 * np.cov(one, other, bias=True)[0, 1] + 0.0324) / (one.var() + other.var() + 0.0324)
        assert found[place] == pytest.approx(brightness * shape, abs=1e-9)


def test_the_feature_autoencoder_sees_standardised_maps_and_finds_the_square() -> None:
    config = BUDGET.model_copy(update={"steps": 60, "width": 8})
    detector, again = (DETECTORS["feature-ae"].make(setting_of(2, config=config)) for _ in range(2))
    for one in (detector, again):
        one.fit(normals_of(2))
    maps = EffNetMaps()(torch.cat(list(normals_of(2).train.blocks()))).double()
    centre, spread = maps.mean(dim=(0, 2, 3)), maps.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(detector.get_buffer("centre").flatten().double(), centre, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(detector.get_buffer("spread").flatten().double(), spread, rtol=1e-2, atol=1e-3)
    normal, planted = detector.score(normal_tensor(2)), detector.score(planted_tensor(2))
    assert planted.min() > normal.max()
    assert torch.equal(planted, again.score(planted_tensor(2)))
    found, without = detector.map(planted_tensor(2)), detector.map(twins())
    assert found is not None and without is not None
    place = (found - without).flatten(1).argmax(dim=1)
    assert (place // 16 <= 8).all() and (place % 16 <= 8).all()  # windows and the network's view reach past the square


@pytest.fixture(scope="module")
def the_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's network whose feature maps are the images themselves."""
    path = tmp_path_factory.mktemp("net") / "same.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(nn.Identity()).save(str(path))
    return path


@pytest.mark.parametrize("grid", [(5, 4), (3, 2, 4), (1, 1)])
def test_the_users_network_gives_the_maps_that_are_restored(grid: tuple[int, ...], the_image: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (12, 6, *grid)).astype(np.uint8)
    train = ImageSet(data_set(images), np.arange(12))
    setting = Setting(BUDGET, ImageShape(grid, 6, 2), ("normal",), CPU, 5, features=the_image)
    detector = DETECTORS["feature-ae"].make(setting)
    figures = detector.fit(Normals(train, train, train))
    assert figures["network"].startswith("own weights") and figures["planes"] == 12 * (grid[0] if len(grid) == 3 else 1)
    assert detector.get_buffer("centre").shape == (6, 1, 1)
    given = train.dataset.tensor(np.arange(2))
    found = detector.map(given)
    assert found is not None and found.shape == (2, *grid)
    torch.testing.assert_close(detector.score(given), found.flatten(1).mean(dim=1))


@pytest.mark.parametrize("dims", [2, 3])
def test_feature_maps_let_gradients_through(dims: int) -> None:
    maps, images = EffNetMaps(side=32), 0.8 * normal_tensor(dims, 2)
    with torch.inference_mode():
        plain = maps(images)
    given = images.clone().requires_grad_()
    found = maps.with_gradient(given)
    torch.testing.assert_close(found.detach(), plain, rtol=0, atol=0)
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(plain.shape, generator=random)
    (slope,) = torch.autograd.grad((found * weights).sum(), given)
    step, way = 2e-4, slope / slope.abs().max()
    ahead, behind = ((maps(images + sign * step * way).double() * weights).sum() for sign in (1, -1))
    assert (slope.double() * way).sum().item() == pytest.approx(((ahead - behind) / (2 * step)).item(), rel=0.1)


def test_perceptual_scores_are_relative_differences_of_standardised_features(the_image: Path) -> None:
    class Brighter(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + 0.5

    setting = dataclasses.replace(setting_of(2), features=the_image)
    detector, normals = DETECTORS["perceptual-ae"].make(setting), normals_of(2)
    assert isinstance(detector, Reconstruction)
    assert detector.fit(normals)["network"].startswith("own weights")
    detector.net = Brighter()
    train, images = torch.cat(list(normals.train.blocks())).double(), planted_tensor(2)
    centre, spread = train.mean(), train.std(correction=0)
    size = ((images.double() - centre) / spread).abs().mean(dim=(1, 2, 3))
    expected = (0.5 / spread / size).float()
    torch.testing.assert_close(detector.score(images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(detector.loss(images, draws()), expected.mean(), rtol=1e-4, atol=1e-5)
    found = detector.map(images)
    assert found is not None
    torch.testing.assert_close(found, expected[:, None, None].expand(-1, *SHAPES[2]), rtol=1e-4, atol=1e-5)


def test_the_perceptual_autoencoder_does_not_restore_a_square(the_image: Path) -> None:
    longer = BUDGET.model_copy(update={"steps": 200, "width": 8})
    detector = DETECTORS["perceptual-ae"].make(dataclasses.replace(setting_of(2, config=longer), features=the_image))
    detector.fit(normals_of(2))
    found, without = detector.map(planted_tensor(2)), detector.map(twins())
    assert found is not None and without is not None and in_the_square(found)
    assert (detector.score(planted_tensor(2)) > detector.score(twins())).all()


def test_the_perceptual_loss_looks_at_what_efficientnet_sees_of_two_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = EffNetMaps.with_gradient
    monkeypatch.setattr(
        EffNetMaps, "with_gradient", lambda self, images: (seen.append(images.shape[2]), plain(self, images))[1]
    )
    detector = DETECTORS["perceptual-ae"].make(setting_of(3))
    assert isinstance(detector, Reconstruction)
    detector.keep(centre=torch.zeros(176), spread=torch.ones(176))
    loss = detector.loss(normal_tensor(3, 2), draws())
    assert seen == [2, 2]
    loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in detector.net.parameters())


def test_a_loss_that_is_not_finite_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Reconstruction, images: Tensor, draws: Draws) -> Tensor:
        return images.mean() * self.net(images).mean() * float("nan")

    monkeypatch.setattr(Reconstruction, "loss", broken)
    with pytest.raises(NonFiniteLoss, match="the autoencoder"):
        DETECTORS["ae"].make(setting_of(2)).fit(normals_of(2))
