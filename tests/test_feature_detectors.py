"""Detectors on features, and what they stand on, against plain implementations, scikit-learn and worked numbers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from detecting import BUDGET, CPU, data_set, normal_tensor, normals_of, planted_tensor, setting_of
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from scipy.stats import binom
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from torch.nn.functional import interpolate

from pipeline.anomaly.detector import Detector, ImageSet, Normals, Setting
from pipeline.anomaly.detectors import DETECTORS
from pipeline.anomaly.neighbours import coreset, mahalanobis, nearest, shrunk_gaussian
from pipeline.measures.conformal import alarm_threshold, conformal_p_values
from pipeline.nets.feature_maps import EffNetMaps
from pipeline.nets.sizes import ImageShape

GRID = (3, 4)


@pytest.fixture(scope="module")
def images_themselves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose feature maps are the images it is given: what detectors see is then known to the last number."""
    path = tmp_path_factory.mktemp("net") / "same.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Identity()).save(str(path))
    return path


def feature_images(number: int, features: int, seed: int, grid: tuple[int, ...] = GRID) -> torch.Tensor:
    """Random maps [number, features, *grid] in [-1, 1] whose features hang together."""
    random = np.random.default_rng(seed)
    mixed = np.einsum(
        "nd...,de->ne...", random.normal(size=(number, features, *grid)), random.normal(size=(features, features))
    )
    stored = np.clip(127 + 20 * mixed, 0, 255).astype(np.uint8)
    return data_set(stored).tensor(np.arange(number))


def fitted(name: str, train: torch.Tensor, network: Path) -> Detector:
    stored = ((train.numpy() + 1) * 127.5).round().astype(np.uint8)
    images = ImageSet(data_set(stored), np.arange(len(stored)))
    np.testing.assert_allclose(torch.cat(list(images.blocks())).numpy(), train.numpy(), atol=1e-6)
    shape = ImageShape(tuple(train.shape[2:]), train.shape[1], 2)
    detector = DETECTORS[name].make(Setting(BUDGET, shape, ("normal",), CPU, 5, features=network))
    detector.fit(Normals(images, images, images))
    return detector.eval()


def padim_distances(train: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The paper's distance at every place, [B, *grid]: a covariance and an inverse for each."""
    found = np.zeros((len(images), *train.shape[2:]))
    for place in np.ndindex(*train.shape[2:]):
        normal, tried = train[(..., *place)], images[(..., *place)]
        covariance = np.cov(normal, rowvar=False) + 0.01 * np.eye(normal.shape[1])
        inverse = np.linalg.inv(covariance)
        for number, one in enumerate(tried):
            apart = one - normal.mean(axis=0)
            found[(number, *place)] = np.sqrt(apart @ inverse @ apart)
    return found


@pytest.mark.parametrize(("features", "grid"), [(6, GRID), (110, (2, 2)), (5, (3, 2, 4))])
def test_padim_is_a_gaussian_at_every_place(features: int, grid: tuple[int, ...], images_themselves: Path) -> None:
    train, tried = feature_images(40, features, 0, grid), feature_images(5, features, 1, grid)
    detector = fitted("padim", train, images_themselves)
    chosen = detector.get_buffer("chosen").numpy()
    assert len(set(chosen)) == len(chosen) == min(features, 100)
    distance = padim_distances(train.double().numpy()[:, chosen], tried.double().numpy()[:, chosen])
    size = (*grid[:-2], 128, 128)
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    large = interpolate(torch.from_numpy(distance)[:, None], size, mode=mode)[:, 0].numpy()
    smooth = gaussian_filter(large, 4.0, axes=(-2, -1), mode="mirror")
    expected = smooth.reshape(len(tried), -1).max(axis=1)
    np.testing.assert_allclose(detector.score(tried).numpy(), expected, rtol=2e-4)
    small = interpolate(torch.from_numpy(smooth)[:, None], grid, mode=mode)[:, 0].numpy()
    found = detector.map(tried)
    assert found is not None
    np.testing.assert_allclose(found.numpy(), small, rtol=2e-4)


def patches_of(images: np.ndarray) -> np.ndarray:
    """Means over 3 x 3 places, nought beyond the edge: [B, places, D]."""
    wide = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)])
    rows, columns = images.shape[2:]
    found = [
        wide[:, :, row : row + 3, column : column + 3].mean(axis=(2, 3))
        for row in range(rows)
        for column in range(columns)
    ]
    return np.stack(found, axis=1)


def patchcore_score(patches: np.ndarray, memory: np.ndarray) -> float:
    """Equations 6 and 7 of Roth et al. for one image's patches [places, D], b = 9."""
    apart = cdist(patches, memory)
    worst = apart.min(axis=1).argmax()
    closest = apart[worst].argmin()
    neighbours = cdist(memory[closest : closest + 1], memory)[0].argsort()[:9]
    distances = np.linalg.norm(patches[worst] - memory[neighbours], axis=1)
    weight = 1 - np.exp(apart[worst, closest]) / np.exp(distances).sum()
    return float(weight * apart[worst, closest])


def test_patchcore_is_the_papers_formula(images_themselves: Path) -> None:
    train, tried = feature_images(30, 6, 0), feature_images(8, 6, 1)
    detector = fitted("patchcore", train, images_themselves)
    memory, seen = detector.get_buffer("bank").double().numpy(), patches_of(train.double().numpy()).reshape(-1, 6)
    assert len(memory) == round(0.1 * len(seen))
    assert cdist(memory, seen).min(axis=1).max() < 1e-6 and len(np.unique(memory, axis=0)) == len(memory)
    patches = patches_of(tried.double().numpy())
    expected = [patchcore_score(one, memory) for one in patches]
    np.testing.assert_allclose(detector.score(tried).numpy(), expected, rtol=1e-4)
    large = interpolate(
        torch.from_numpy(np.stack([cdist(one, memory).min(axis=1).reshape(GRID) for one in patches]))[:, None],
        (128, 128), mode="bilinear",
    )  # fmt: skip
    smooth = gaussian_filter(large.numpy(), 4.0, axes=(-2, -1), mode="mirror")
    found = detector.map(tried)
    assert found is not None
    small = interpolate(torch.from_numpy(smooth), GRID, mode="bilinear")[:, 0].numpy()
    np.testing.assert_allclose(found.numpy(), small, rtol=1e-4)


def test_knn_and_mahalanobis_on_pooled_features(images_themselves: Path) -> None:
    train, tried = feature_images(30, 6, 0), feature_images(8, 6, 1)
    normal, own = (images.double().numpy().mean(axis=(2, 3)) for images in (train, tried))
    two = np.sort(cdist(own, normal), axis=1)[:, :2].mean(axis=1)
    np.testing.assert_allclose(fitted("knn", train, images_themselves).score(tried).numpy(), two, rtol=1e-4)
    distance = np.sqrt(LedoitWolf().fit(normal).mahalanobis(own))
    found = fitted("mahalanobis", train, images_themselves).score(tried).numpy()
    np.testing.assert_allclose(found, distance, rtol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_pca_leaves_over_what_scikit_learn_does(dims: int) -> None:
    normals = normals_of(dims)
    detector = DETECTORS["pca"].make(setting_of(dims))
    detector.fit(normals)
    pixels = torch.cat(list(normals.train.blocks())).flatten(1).double().numpy()
    model = PCA(0.95, svd_solver="full").fit(pixels)
    tried = torch.cat([normal_tensor(dims), planted_tensor(dims)])
    own = tried.flatten(1).double().numpy()
    left = np.square(own - model.inverse_transform(model.transform(own)))
    np.testing.assert_allclose(detector.score(tried).numpy(), left.mean(axis=1), rtol=1e-3)
    found = detector.map(tried)
    assert found is not None
    np.testing.assert_allclose(found.flatten(1).numpy(), left, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(("number", "features"), [(200, 12), (20, 40)])
def test_the_shrunk_gaussian_is_that_of_ledoit_and_wolf(number: int, features: int) -> None:
    random = np.random.default_rng(0)
    vectors = 5 + random.normal(size=(number, features)) @ random.normal(size=(features, features))
    tried = 5 + 4 * random.normal(size=(30, features))
    found = mahalanobis(torch.tensor(tried).float(), *shrunk_gaussian(torch.tensor(vectors).float()))
    np.testing.assert_allclose(found.square().numpy(), LedoitWolf().fit(vectors).mahalanobis(tried), rtol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_nearest_neighbours_by_brute_force(offset: float) -> None:
    """Far from the origin too, where differences of squares lose their digits."""
    random = np.random.default_rng(0)
    bank = (offset + random.normal(size=(300, 16))).astype(np.float32)
    vectors = np.concatenate([offset + random.normal(size=(50, 16)), bank[:5] + 1e-3]).astype(np.float32)
    distance, which = nearest(torch.from_numpy(vectors), torch.from_numpy(bank), 4)
    apart = cdist(vectors.astype(float), bank.astype(float))
    np.testing.assert_allclose(distance.numpy(), np.sort(apart, axis=1)[:, :4], rtol=1e-3)
    np.testing.assert_array_equal(which.numpy(), apart.argsort(axis=1)[:, :4])
    assert nearest(torch.from_numpy(vectors), torch.from_numpy(bank[:3]), 4)[0].shape == (55, 3)
    assert nearest(torch.empty(0, 16), torch.from_numpy(bank), 4)[0].shape == (0, 4)


def test_the_nearer_of_two_neighbours_is_told_far_from_the_banks_middle() -> None:
    """Twins 0.02 apart, 1,600 from the middle: rounded squares alone cannot tell them, their distances can."""
    random = np.random.default_rng(0)
    firsts = np.repeat([[-400.0], [400.0]], 40, axis=0) + random.normal(size=(80, 16))
    bank = np.concatenate([firsts, firsts + 0.005]).astype(np.float32)
    which = nearest(torch.from_numpy(bank[80:] - np.float32(0.0005)), torch.from_numpy(bank), 1)[1]
    assert which[:, 0].tolist() == list(range(80, 160))


def test_the_coreset_takes_what_is_farthest_from_those_taken() -> None:
    """On a line with points at 0, 1, 4 and 10: the whole order follows from the first."""
    points = torch.tensor([[0.0], [1.0], [4.0], [10.0]])
    orders = {0: [0, 3, 2, 1], 1: [1, 3, 2, 0], 2: [2, 3, 0, 1], 3: [3, 0, 2, 1]}
    found = [coreset(points, 9, seed).tolist() for seed in range(24)]
    assert {order[0] for order in found} == set(orders)
    assert all(order == orders[order[0]] for order in found)
    assert coreset(points, 2, 0).tolist() == orders[found[0][0]][:2]


def test_the_coreset_finds_every_cluster_after_its_projection() -> None:
    random = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(8, 300, generator=random)
    which = torch.arange(400) % 8
    vectors = centres[which] + torch.randn(400, 300, generator=random)
    for seed in range(5):
        assert sorted(which[coreset(vectors, 8, seed)].tolist()) == list(range(8))


CALIBRATION = np.array([1.0, 3.0, 2.0, 5.0, 5.0, 9.0])
PATIENTS = np.array(["a", "a", "b", "c", "c", "c"])


@pytest.mark.parametrize(
    ("score", "p_value"),
    [
        (0.0, 1.0),  # (1 + 3) / (1 + 3): all three patients are as large
        (1.5, (1 + 1 / 2 + 1 + 1) / 4),  # half of a, all of b and c
        (2.0, (1 + 1 / 2 + 1 + 1) / 4),  # b's own score counts as large
        (3.0, (1 + 1 / 2 + 1) / 4),
        (3.5, (1 + 1) / 4),
        (5.0, (1 + 1) / 4),
        (6.0, (1 + 1 / 3) / 4),  # a third of c
        (9.5, 1 / 4),
    ],
)
def test_p_values_by_worked_numbers(score: float, p_value: float) -> None:
    assert conformal_p_values(np.array([score]), CALIBRATION, PATIENTS)[0] == pytest.approx(p_value)


def test_without_calibration_patients_nothing_is_unlikely() -> None:
    assert conformal_p_values(np.array([1.0, 9.0]), np.array([]), np.array([], dtype=str)).tolist() == [1.0, 1.0]
    assert alarm_threshold(np.array([]), np.array([], dtype=str), 0.2) == np.inf


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("rate", [0.05, 0.12])
def test_normal_patients_raise_no_more_alarms_than_asked(rate: float, images: int) -> None:
    """One image of a new normal patient against 39 others with 1 to `images` images each, alike within a patient."""
    random, draws, alarms, number = np.random.default_rng(3), 4000, 0, 39
    for _ in range(draws):
        counts = random.integers(1, images + 1, number + 1)
        own = np.repeat(random.normal(size=number + 1), counts) + random.normal(size=counts.sum())
        patients = np.repeat(np.arange(number + 1), counts)
        new = patients == number
        p_value = conformal_p_values(own[new][:1], own[~new], patients[~new])
        alarms += int(p_value[0] <= rate)
    possible = np.floor(rate * (number + 1)) / (number + 1)  # where every patient has one image
    assert alarms <= binom.ppf(0.9999, draws, possible if images == 1 else rate)
    assert alarms >= binom.ppf(0.0001, draws, possible - 0.03 * (images > 1))


def test_alarms_are_where_p_values_are_at_most_the_rate() -> None:
    random = np.random.default_rng(4)
    for number in (1, 2, 9, 19, 40):
        patients = np.repeat(np.arange(number), random.integers(1, 4, number)).astype(str)
        calibration = random.integers(0, 12, len(patients)) / 7  # with ties
        scores = np.concatenate([calibration, np.nextafter(calibration, np.inf), np.nextafter(calibration, -np.inf)])
        scores = np.concatenate([scores, [-1.0, 99.0]])
        p_values = conformal_p_values(scores, calibration, patients)
        for rate in (0.01, 1 / 20, 0.1, 1 / 3, 0.49, *(part / (number + 1) for part in range(1, number + 1))):
            threshold = alarm_threshold(calibration, patients, rate)
            np.testing.assert_array_equal(scores >= threshold, p_values <= rate + 1e-12)


def test_the_threshold_by_worked_numbers() -> None:
    """Nineteen patients of one image: one in twenty is the largest, two are the two largest."""
    calibration, patients = np.arange(1.0, 20.0), np.arange(19).astype(str)
    assert alarm_threshold(calibration, patients, 0.05) == np.nextafter(19.0, np.inf)
    assert alarm_threshold(calibration, patients, 0.1) == np.nextafter(18.0, np.inf)
    assert alarm_threshold(calibration, patients, 0.049) == np.inf


def test_of_a_thick_volume_sixteen_evenly_spaced_slices_are_seen() -> None:
    volume = torch.rand(1, 1, 46, 12, 12, generator=torch.Generator().manual_seed(3)) * 2 - 1
    maps = EffNetMaps()(volume)
    assert maps.shape == (1, 176, 16, 16, 16)
    for place, depth in enumerate(range(0, 46, 3)):  # 0, 3, ..., 45
        torch.testing.assert_close(maps[:, :, place], EffNetMaps()(volume[:, :, depth]), rtol=1e-3, atol=1e-4)
