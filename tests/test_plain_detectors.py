"""Detectors of tables of numbers against libraries and formulas; those that teach themselves; what is pasted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from detecting import BUDGET, data_set, normal_tensor, normals_of, planted_tensor, setting_of
from scipy.stats import skew
from sklearn.ensemble import IsolationForest

from pipeline.anomaly.corruptions import cut_pasted, scarred
from pipeline.anomaly.detector import Detector, ImageSet, Normals
from pipeline.anomaly.detectors import DETECTORS
from pipeline.anomaly.detectors.cutpaste import CutPaste
from pipeline.anomaly.own_features import OnOwnFeatures
from pipeline.anomaly.thumbnails import averaged_down, thumbnails
from pipeline.data.batches.draws import Draws


def fitted(name: str, dims: int, **budget: Any) -> Detector:
    detector = DETECTORS[name].make(setting_of(dims, config=BUDGET.model_copy(update=budget)))
    detector.fit(normals_of(dims))
    return detector.eval()


def normal_blocks(dims: int) -> torch.Tensor:
    """The training images."""
    return torch.cat(list(normals_of(dims).train.blocks()))


def vectors(images: torch.Tensor) -> np.ndarray:
    """The images of these tests are no larger than a thumbnail."""
    return images.flatten(1).numpy()


def test_a_thumbnails_cell_is_the_mean_of_its_voxels() -> None:
    image = torch.arange(32.0 * 32).view(1, 1, 32, 32)
    small = averaged_down(image, 16)
    assert small.shape == (1, 1, 16, 16)
    assert small[0, 0, 0, 0] == (0 + 1 + 32 + 33) / 4 and small[0, 0, 1, 2] == (68 + 69 + 100 + 101) / 4
    assert thumbnails(torch.rand(2, 3, 40, 12)).shape == (2, 3 * 16 * 12)
    assert thumbnails(torch.rand(2, 1, 8, 16, 24)).shape == (2, 8 * 8 * 8)


@pytest.mark.parametrize("dims", [2, 3])
def test_isolation_forest_scores_as_scikit_learn_does(dims: int) -> None:
    detector = fitted("isolation-forest", dims)
    forest = IsolationForest(n_estimators=100, max_samples=24, random_state=detector.setting.seed)
    forest.fit(vectors(normal_blocks(dims)))
    images = torch.cat([normal_tensor(dims), planted_tensor(dims)])
    expected = -forest.score_samples(vectors(images))
    np.testing.assert_allclose(detector.score(images).numpy(), expected, rtol=1e-6)


def ecod_of(train: np.ndarray, image: np.ndarray) -> float:
    """PyOD's formula for one image [D] after the training images [n, D], written cell by cell."""
    everyone = np.vstack([train, image])
    skewness, total = skew(everyone, axis=0), 0.0
    for cell, own in enumerate(image):
        left = -np.log(sum(everyone[:, cell] <= own) / len(everyone))
        right = -np.log(sum(everyone[:, cell] >= own) / len(everyone))
        corrected = left if skewness[cell] < 0 else right
        total += max(left, right, corrected)
    return float(total)


@pytest.mark.parametrize("dims", [2, 3])
def test_ecod_is_the_formula_on_the_training_images_and_the_image_itself(dims: int) -> None:
    detector, train = fitted("ecod", dims), vectors(normal_blocks(dims))
    images = torch.cat([normal_tensor(dims), planted_tensor(dims)])
    expected = [ecod_of(train, one) for one in vectors(images)]
    np.testing.assert_allclose(detector.score(images).numpy(), expected, rtol=1e-6)


def test_ecod_by_worked_numbers() -> None:
    """One row of two voxels; normals are 10, 20, 30, 40 in the first and always 7 in the second."""
    train = np.full((4, 1, 1, 2), 7, dtype=np.uint8)
    train[:, 0, 0, 0] = [10, 20, 30, 40]
    images = ImageSet(data_set(train), np.arange(4))
    detector = DETECTORS["ecod"].make(setting_of(2))
    detector.fit(Normals(images, images, images))
    tried = data_set(np.array([[[[25, 7]]], [[[40, 7]]], [[[50, 7]]], [[[40, 8]]]], dtype=np.uint8))
    expected = [
        -np.log(3 / 5),  # 10 and 20 are no larger, 30 and 40 no smaller; 25 itself counts with either
        -np.log(2 / 5),  # 40 twice
        -np.log(1 / 5),
        -np.log(2 / 5) - np.log(1 / 5),
    ]
    np.testing.assert_allclose(detector.score(tried.tensor(np.arange(4))).numpy(), expected, rtol=1e-6)


def test_ecods_map_adds_up_to_the_score_and_shows_the_square() -> None:
    detector, planted = fitted("ecod", 2), planted_tensor(2)
    found = detector.map(planted)
    assert found is not None
    torch.testing.assert_close(found.flatten(1).sum(dim=1), detector.score(planted))
    inside = found[:, 1:6, 1:6].mean()
    assert inside == pytest.approx(np.log(25))  # beyond all 24 normal images everywhere
    assert found[:, 8:, 8:].mean() < inside / 2


@pytest.mark.parametrize("spoil", [cut_pasted, scarred])
@pytest.mark.parametrize("shape", [(24, 32), (12, 16, 20)])
def test_what_is_pasted_comes_from_the_same_image(spoil: Any, shape: tuple[int, ...]) -> None:
    images = torch.rand((6, 1, *shape), generator=torch.Generator().manual_seed(1))
    before = images.clone()
    spoilt = spoil(images, Draws(torch.Generator().manual_seed(2)))
    assert images.equal(before)
    for old, new in zip(images, spoilt, strict=True):
        changed = old != new
        assert 0 < changed.sum() < 0.3 * changed.numel()
        assert torch.isin(new[changed], old).all()  # random values: each stands in one place of one image
    again = spoil(images, Draws(torch.Generator().manual_seed(2)))
    assert again.equal(spoilt)


def test_a_scar_is_long_and_thin() -> None:
    """At most 2 x 35 % of the side in any direction, two voxels or 8 % of it across: 45 x 10.24 voxels of 128²."""
    images = torch.rand((40, 1, 128, 128), generator=torch.Generator().manual_seed(1))
    spoilt = scarred(images, Draws(torch.Generator().manual_seed(3)))
    spans = []
    for changed in (images != spoilt)[:, 0]:
        rows, columns = torch.nonzero(changed, as_tuple=True)
        points = torch.stack([rows, columns], dim=1).double()
        centred = points - points.mean(dim=0)
        extent = torch.linalg.svdvals(centred) / len(points) ** 0.5 * 12**0.5  # of a uniform rectangle
        spans.append(extent.tolist())
        assert extent[0] < 0.35 * 128 + 2 and extent[1] < 0.08 * 128 + 2
    assert np.mean([long / short for long, short in spans]) > 2


def won(higher: torch.Tensor, lower: torch.Tensor) -> float:
    return float((higher[:, None] > lower[None]).float().mean())


@pytest.mark.parametrize("name", ["cutpaste", "simclr-knn"])
def test_features_learnt_from_normals_tell_planted_squares_from_them(name: str) -> None:
    detector = fitted(name, 2, steps=40, width=8)
    assert won(detector.score(planted_tensor(2, 20)), detector.score(normal_tensor(2, 20))) > 0.9


def test_cutpaste_learns_to_see_what_is_pasted() -> None:
    normal = normal_tensor(2, 60)
    scores = {}
    for steps in (1, 300):
        detector = fitted("cutpaste", 2, steps=steps, width=8)
        spoilt = cut_pasted(normal, Draws(torch.Generator().manual_seed(2)))
        scores[steps] = won(detector.score(spoilt), detector.score(normal))
    assert scores[300] > scores[1] + 0.02


def test_neighbours_are_sought_by_angle() -> None:
    """The mean of the two smallest sqrt(2 - 2 cos), cosines by hand."""
    detector = fitted("simclr-knn", 2)
    assert isinstance(detector, OnOwnFeatures)
    tried, normals = (detector.vectors(one).double().numpy() for one in (planted_tensor(2), normal_blocks(2)))
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (tried, normals)]
    distance = np.sqrt(np.maximum(2 - 2 * unit[0] @ unit[1].T, 0))
    expected = np.sort(distance, axis=1)[:, :2].mean(axis=1)
    np.testing.assert_allclose(detector.score(planted_tensor(2)).numpy(), expected, rtol=1e-3)


def test_the_map_of_cutpaste_shares_the_squared_score_out_among_places() -> None:
    """Beside Grad-CAM of half the squared score by autograd: gradients times what differs from the mean."""
    detector = fitted("cutpaste", 2, steps=20, width=8)
    assert isinstance(detector, CutPaste)
    images = torch.cat([planted_tensor(2, 3), normal_tensor(2, 3)])
    grids = detector.trunk(images).detach().requires_grad_()
    distance = (grids.mean(dim=(2, 3)) - detector.mean) @ detector.whitening
    (0.5 * distance.square().sum()).backward()
    assert grids.grad is not None
    places = grids[0, 0].numel()
    expected = places * (grids.grad * (grids.detach() - detector.mean[:, None, None])).sum(dim=1)
    shares = detector.shares(images)
    torch.testing.assert_close(shares, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(shares.flatten(1).mean(dim=1), detector.score(images).square(), rtol=1e-3, atol=1e-3)


def test_the_map_of_cutpaste_is_brightest_at_a_planted_square() -> None:
    """In a quarter of an image of 32 x 32, whose map has 4 x 4 places."""
    random = np.random.default_rng(0)
    images = (100 + random.normal(0, 6, (60, 1, 32, 32))).clip(0, 255).astype(np.uint8)
    normal = ImageSet(data_set(images[:40]), np.arange(40))
    spoilt = images[40:].copy()
    spoilt[:, :, 4:12, 20:28] += 60
    budget = BUDGET.model_copy(update={"steps": 40, "width": 8})
    setting = setting_of(2, config=budget)
    detector = DETECTORS["cutpaste"].make(replace(setting, shape=replace(setting.shape, spatial_size=(32, 32))))
    detector.fit(Normals(normal, normal, normal))
    found = detector.eval().map(data_set(spoilt).tensor(np.arange(20)))
    assert found is not None
    quarters = found.unflatten(1, (2, 16)).unflatten(3, (2, 16)).mean(dim=(2, 4)).flatten(1)
    assert (quarters.argmax(dim=1) == 1).float().mean() > 0.8
