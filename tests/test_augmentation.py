"""Batched augmentation against MONAI's per-image transforms and plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.layers import AffineTransform
from monai.transforms import Affine
from scipy.ndimage import gaussian_filter

from pipeline.adversarial.adaptation import augment_probability, augmenter_of
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.config.augment import APPEARANCE, AugmentConfig, with_appearance
from pipeline.data.batches.augmentation import Augmenter, affine_matrices, copied, normalised, smoothed
from pipeline.data.batches.draws import Draws

NOTHING = {"brightness": 0, "contrast": 0, "shift": 0, "rotate_degrees": 0, "scale": 0, "noise": 0}


def policy(**strengths: float) -> AugmentConfig:
    return AugmentConfig(**(NOTHING | strengths))  # type: ignore[arg-type]


def images(dims: int, batch: int = 3, side: int = 12) -> torch.Tensor:
    return torch.rand(batch, 1, *[side] * dims, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("dims", [2, 3])
def test_geometry_equals_monais_per_image_affine(dims: int) -> None:
    strengths = policy(rotate_degrees=20, scale=0.2, shift=0.2)
    batch = images(dims)
    warped = Augmenter(strengths)(batch, Draws(torch.Generator().manual_seed(7)))
    matrices = affine_matrices(batch, strengths, Draws(torch.Generator().manual_seed(7)))
    for image, matrix, expected in zip(batch, matrices, warped, strict=True):
        single = Affine(affine=matrix.numpy(), padding_mode="reflection", align_corners=False, image_only=True)
        np.testing.assert_allclose(np.asarray(single(image)), expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_shift_copies_voxels_and_reflects_at_the_border(dims: int) -> None:
    batch = images(dims, batch=1)
    shifted = Augmenter(policy(shift=0.3))(batch, Draws(torch.Generator().manual_seed(3)))[0, 0].numpy()
    matrix = affine_matrices(batch, policy(shift=0.3), Draws(torch.Generator().manual_seed(3)))[0]
    offsets = matrix[:dims, dims].round().int().tolist()
    padded = np.pad(batch[0, 0].numpy(), 12, mode="symmetric")
    window = tuple(slice(12 + offset, 24 + offset) for offset in offsets)
    np.testing.assert_array_equal(shifted, padded[window])
    assert any(offsets)


@pytest.mark.parametrize("dims", [2, 3])
def test_copied_voxels_and_their_gradients_are_those_of_monais_warp(dims: int) -> None:
    """Mirrored or not, shifted by up to half of a side."""
    random = torch.Generator().manual_seed(2)
    batch = torch.rand(16, 2, *(12, 9, 7)[:dims], generator=random)
    matrices = affine_matrices(batch, policy(shift=0.5), Draws(random))
    matrices[:, :dims] *= torch.randint(0, 2, (16, dims, 1), generator=random) * 2 - 1
    warp = AffineTransform(normalized=True, mode="bilinear", padding_mode="reflection", align_corners=False)
    received = torch.randn(batch.shape, generator=random)
    results = []
    for move in (lambda given: copied(given, matrices), lambda given: warp(given, normalised(matrices, given))):
        given = batch.clone().requires_grad_()
        seen = move(given)
        seen.backward(received)
        results.append((seen.detach(), given.grad))
    for own, monais in zip(*results, strict=True):
        torch.testing.assert_close(own, monais, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sides", [(12, 12), (9, 40), (12, 12, 12), (5, 24, 8)])
@pytest.mark.parametrize("strengths", [{}, {"rotate_degrees": 180, "scale": 0.49, "shift": 0.5}], ids=["mild", "wild"])
def test_warping_and_its_gradients_are_monais(sides: tuple[int, ...], strengths: dict[str, float]) -> None:
    """However far outside: a long side turned onto a short one needs several mirrors."""
    random, strengths = (
        torch.Generator().manual_seed(8),
        {"rotate_degrees": 8, "scale": 0.08, "shift": 0.08} | strengths,
    )
    batch = torch.rand(16, 2, *sides, generator=random)
    given, again = batch.clone().requires_grad_(), batch.clone().requires_grad_()
    seen = Augmenter(policy(**strengths))(given, Draws(torch.Generator().manual_seed(9)))
    matrices = affine_matrices(batch, policy(**strengths), Draws(torch.Generator().manual_seed(9)))
    warp = AffineTransform(normalized=True, mode="bilinear", padding_mode="reflection", align_corners=False)
    expected = warp(again, normalised(matrices, again))
    received = torch.randn(batch.shape, generator=random)
    seen.backward(received)
    expected.backward(received)
    torch.testing.assert_close(seen, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(given.grad, again.grad, atol=1e-4, rtol=0)


@pytest.mark.parametrize("probability", [None, torch.tensor(0.5)])
def test_mirroring_and_rotating_at_once_equal_one_after_the_other(probability: torch.Tensor | None) -> None:
    batch, flip, rest = images(3, batch=8), {"flip": (0, 2)}, {"rotate_degrees": 20, "scale": 0.2, "shift": 0.2}
    draws, again = (Draws(torch.Generator().manual_seed(4)) for _ in range(2))
    mirrored = Augmenter(policy(**flip), probability)(batch, draws)  # type: ignore[arg-type]
    expected = Augmenter(policy(**rest), probability)(mirrored, draws)
    at_once = Augmenter(policy(**flip, **rest), probability)(batch, again)  # type: ignore[arg-type]
    torch.testing.assert_close(at_once, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sides", [(12, 9), (5, 40), (7, 9, 8)])
def test_each_image_is_smoothed_by_its_own_gaussian_as_scipys(sides: tuple[int, ...]) -> None:
    batch = torch.rand(3, 2, *sides, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.6, 1.5, 0.0])
    seen = smoothed(batch, sigma, 1.5)
    axes = tuple(range(1, len(sides) + 1))
    for image, own, width in zip(batch.numpy(), seen.numpy(), sigma.tolist(), strict=True):
        expected = gaussian_filter(image.astype(float), width, radius=6, axes=axes) if width else image
        np.testing.assert_allclose(own, expected, atol=1e-6)


def test_half_of_the_images_are_blurred_and_half_sharpened() -> None:
    batch = images(2, batch=64)
    seen = Augmenter(policy(blur=1.5, sharpen=2))(batch, Draws(torch.Generator().manual_seed(6)))
    random = torch.Generator().manual_seed(6)
    sigma, chosen, strength = (torch.rand(64, generator=random).numpy() for _ in range(3))
    for number, (image, own) in enumerate(zip(batch.numpy(), seen.numpy(), strict=True)):
        taken = image - gaussian_filter(image.astype(float), 1.5 * sigma[number], radius=6, axes=(1, 2))
        factor = 2 * strength[number] if chosen[number] < 0.5 else -1
        np.testing.assert_allclose(own, image + factor * taken, atol=1e-5)
    assert 16 < (chosen < 0.5).sum() < 48


def test_stronger_appearance_only_adds_to_a_policy() -> None:
    own = policy(gamma=0.9, flip=(1,))  # type: ignore[arg-type]
    assert with_appearance(own) == policy(**(APPEARANCE | {"gamma": 0.9, "flip": (1,)}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="set blur too"):
        policy(sharpen=1)


def test_contrast_then_brightness_each_for_the_images_that_its_own_draw_chose() -> None:
    batch, probability = images(2, batch=16), torch.tensor(0.5)
    seen = Augmenter(policy(contrast=0.5, brightness=0.3), probability)(batch, Draws(torch.Generator().manual_seed(6)))
    random = torch.Generator().manual_seed(6)
    factor, contrasted, change, brightened = (torch.rand(16, generator=random).numpy() for _ in range(4))
    for number, (image, own) in enumerate(zip(batch.numpy(), seen.numpy(), strict=True)):
        if contrasted[number] < 0.5:
            image = (image - image.mean()) * (0.5 + factor[number]) + image.mean()
        if brightened[number] < 0.5:
            image = image + 0.6 * change[number] - 0.3
        np.testing.assert_allclose(own, image, atol=1e-6)


def test_intensities_follow_their_definitions() -> None:
    batch = images(2)
    brighter = Augmenter(policy(brightness=0.4))(batch, Draws(torch.Generator().manual_seed(0))) - batch
    draws = torch.rand(3, 1, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.8 - 0.4
    torch.testing.assert_close(brighter, draws.expand_as(batch))
    contrasted = Augmenter(policy(contrast=0.5))(batch, Draws(torch.Generator().manual_seed(0)))
    torch.testing.assert_close(contrasted.mean((1, 2, 3)), batch.mean((1, 2, 3)))
    factor = torch.rand(3, generator=torch.Generator().manual_seed(0)) + 0.5
    torch.testing.assert_close(contrasted.std((1, 2, 3)) / batch.std((1, 2, 3)), factor)


@pytest.mark.parametrize("dims", [2, 3])
def test_cutout_sets_a_square_of_the_asked_side_to_the_lowest_value(dims: int) -> None:
    cut = Augmenter(policy(cutout=0.5))(images(dims, batch=64) * 0.5, Draws(torch.Generator().manual_seed(0)))
    covered = (cut == -1).flatten(1).sum(1)
    assert covered.max() == 6**dims
    assert covered.min() >= 3**dims - 1  # never less than the quarter that lies inside at a corner


def test_every_image_has_its_own_draw_and_draws_repeat_with_the_seed() -> None:
    same = images(2, batch=1).repeat(4, 1, 1, 1)
    first = Augmenter(AugmentConfig())(same, Draws(torch.Generator().manual_seed(5)))
    again = Augmenter(AugmentConfig())(same, Draws(torch.Generator().manual_seed(5)))
    assert torch.equal(first, again)
    assert not torch.allclose(first[0], first[1])


def test_gradients_reach_the_images() -> None:
    batch = images(3).requires_grad_()
    Augmenter(AugmentConfig(cutout=0.3))(batch, Draws(torch.Generator().manual_seed(0))).square().mean().backward()
    assert batch.grad is not None
    assert torch.isfinite(batch.grad).all() and batch.grad.abs().sum() > 0


def test_flips_mirror_only_the_named_axis() -> None:
    batch = images(2, batch=16)
    flipped = Augmenter(policy(flip=(1,)))(batch, Draws(torch.Generator().manual_seed(0)))  # type: ignore[arg-type]
    as_is = (flipped == batch).flatten(1).all(1)
    mirrored = (flipped == batch.flip(3)).flatten(1).all(1)
    assert (as_is | mirrored).all() and as_is.any() and mirrored.any()


@pytest.mark.parametrize(
    "strength",
    [{"brightness": 0.4}, {"contrast": 0.4}, {"shift": 0.3}, {"rotate_degrees": 30.0}, {"gamma": 0.5}, {"noise": 0.5},
     {"cutout": 0.4}, {"flip": (1,)}],
)  # fmt: skip
def test_a_transform_acts_never_or_always_at_probability_0_or_1(strength: dict[str, Any]) -> None:
    batch = images(2, batch=16)

    def augmented(probability: torch.Tensor | None) -> torch.Tensor:
        return Augmenter(policy(**strength), probability)(batch, Draws(torch.Generator().manual_seed(5)))

    torch.testing.assert_close(augmented(torch.tensor(0.0)), batch, atol=1e-5, rtol=0)
    torch.testing.assert_close(augmented(torch.tensor(1.0)), augmented(None), atol=0, rtol=0)
    assert not torch.allclose(augmented(None), batch, atol=1e-2)


def test_transforms_act_as_often_as_asked_and_independently() -> None:
    num, probability = 20_000, torch.tensor(0.3)
    augment = Augmenter(policy(brightness=0.5, cutout=0.5), probability)
    draws = Draws(torch.Generator().manual_seed(0))
    seen = augment(torch.zeros(num, 1, 4, 4), draws)
    cut = (seen == -1).flatten(1).any(1)
    brighter = (seen != -1).logical_and(seen != 0).flatten(1).any(1)
    tolerance = 4 * (0.3 * 0.7 / num) ** 0.5
    assert float(cut.float().mean()) == pytest.approx(0.3, abs=tolerance)
    assert float(brighter.float().mean()) == pytest.approx(0.3, abs=tolerance)
    assert float((cut & brighter).float().mean()) == pytest.approx(0.09, abs=tolerance)
    probability.fill_(0)  # it may change between calls
    assert torch.equal(augment(torch.zeros(8, 1, 4, 4), draws), torch.zeros(8, 1, 4, 4))


@pytest.mark.parametrize(("num_images", "probability"), [(1000, 0.0), (3163, 0.5), (10_000, 1.0), (99, 0.0)])
def test_augmentation_is_as_likely_as_images_are_shown_often(num_images: int, probability: float) -> None:
    """Of 100 images: never up to 10 times each, always from 100 times on; 10^1.5 times is half-way."""
    gan = SnganConfig(num_images=num_images)
    assert augment_probability(gan, 100) == pytest.approx(probability, abs=1e-3)
    assert augment_probability(SnganConfig(num_images=num_images, augment_probability=0.3), 100) == 0.3


def test_a_probability_of_zero_leaves_images_as_they_are() -> None:
    images = torch.rand(4, 1, 16, 16) * 2 - 1
    draws = Draws(torch.Generator().manual_seed(0))
    assert torch.equal(augmenter_of(SnganConfig(num_images=100), 100, None)(images, draws), images)
    assert not torch.equal(augmenter_of(SnganConfig(num_images=10**6), 100, None)(images, draws), images)
