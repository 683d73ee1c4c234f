"""The measures of image quality against worked examples, closed forms, plain loops and SciPy."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist, jensenshannon

from pipeline.core.errors import DataError
from pipeline.measures.coverage import nearest_distances, nearest_others, pairwise_distances
from pipeline.measures.frechet import fid, fid_interval
from pipeline.measures.histograms import intensity_histograms, jensen_shannon, wasserstein_1
from pipeline.measures.inception_score import inception_score
from pipeline.measures.kernel_distance import kid
from pipeline.measures.ms_ssim import ms_ssim, pairwise_ms_ssim, pairwise_ms_ssim_interval
from pipeline.measures.near_copies import Nearness, chance_of_near, near_copies
from pipeline.measures.radiomics import (
    NAMES,
    co_occurrence,
    co_occurrence_features,
    directions,
    radiomics,
    radiomics_distance,
)
from pipeline.measures.spectra import radial_spectra, spectrum_distance
from pipeline.measures.subsampling import margins
from pipeline.nets.classifiers import make_classifier
from pipeline.nets.extractors import ClassifierFeatures, ScriptedFeatures


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# Sets in blocks


def test_fid_in_blocks_of_float32_is_that_of_known_gaussians(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means 3 apart along the first axis, standard deviations 1 and 2 along all: 3² + 5 (2 - 1)²."""
    monkeypatch.setattr("pipeline.measures.frechet._BLOCK", 7)
    features = normal(0, 60, 5)
    white = (features - features.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(features, rowvar=False))).T
    fake = 2 * white + np.array([3, 0, 0, 0, 0])
    assert fid(white, fake[::-1]) == pytest.approx(14)
    assert fid(white.astype(np.float32), fake.astype(np.float32)) == pytest.approx(14, rel=1e-5)
    assert fid(white, white[::-1]) < 1e-9


def test_fid_interval_of_small_parts_is_as_wide_as_the_distance_scatters() -> None:
    pairs = [(normal(seed, 150, 4), 1.3 * normal(1000 + seed, 120, 4) + 0.5) for seed in range(60)]
    figures = [fid(*pair) for pair in pairs]
    intervals = [fid_interval(*pair, draws=24, seed=n, alpha=0.1, most=40) for n, pair in enumerate(pairs)]
    quantile = 1.714  # Student's 95 % quantile at 23 degrees of freedom
    widths = [(high - low) / 2 / quantile for low, high in intervals]
    assert 1 / 1.4 < np.mean(widths) / np.std(figures, ddof=1) < 1.4


@pytest.mark.parametrize("most", [None, 20])
def test_margins_of_a_difference_of_means_are_the_textbooks(most: int | None) -> None:
    one, two = normal(0, 80), 2 * normal(1, 60)
    found = margins(
        lambda left, right: [one[left].mean() - two[right].mean(), np.nan], (80, 60), draws=2000, seed=0, most=most
    )
    error = np.sqrt(one.var(ddof=1) / 80 + two.var(ddof=1) / 60)
    assert found[0] == pytest.approx(1.961 * error, rel=0.08)
    assert np.isnan(found[1])


def test_margins_within_strata_leave_out_what_moves_between_them() -> None:
    one, two = normal(0, 80), normal(1, 60)
    classes = np.arange(80) % 2, np.arange(60) % 2
    apart = [values + 50 * label for values, label in zip((one, two), classes, strict=True)]

    def figure(left: np.ndarray, right: np.ndarray) -> list[float]:
        return [apart[0][left].mean() - apart[1][right].mean()]

    within = margins(figure, (80, 60), draws=1000, seed=0, strata=classes)[0]
    variances = [
        np.mean([values[label == n].var(ddof=1) for n in (0, 1)]) / len(values)
        for values, label in zip((one, two), classes, strict=True)
    ]
    assert within == pytest.approx(1.962 * np.sqrt(sum(variances)), rel=0.1)
    assert margins(figure, (80, 60), draws=1000, seed=0)[0] > 10 * within


def test_kid_of_parts_is_the_mean_of_plain_loops_over_its_parts() -> None:
    def by_loops(real: np.ndarray, fake: np.ndarray) -> float:
        def mean(one: np.ndarray, two: np.ndarray, *, itself: bool) -> float:
            pairs = itertools.product(range(len(one)), range(len(two)))
            return float(np.mean([(one[i] @ two[j] / 6 + 1) ** 3 for i, j in pairs if itself or i != j]))

        return mean(real, real, itself=False) + mean(fake, fake, itself=False) - 2 * mean(real, fake, itself=True)

    real, fake = normal(0, 21, 6), normal(1, 17, 6) + 0.4
    assert kid(real, fake)[0] == pytest.approx(by_loops(real, fake))
    random = np.random.default_rng(3)
    parts = [np.array_split(random.permutation(len(each)), 3) for each in (real, fake)]
    expected = np.mean([by_loops(real[one], fake[two]) for one, two in zip(*parts, strict=True)])
    value, low, high = kid(real, fake, subset=7, seed=3)
    assert value == pytest.approx(expected)
    assert low < value < high


def test_kid_of_parts_has_no_bias_and_honest_intervals() -> None:
    found = np.array([kid(normal(s, 24, 4), normal(500 + s, 18, 4), subset=8) for s in range(200)])
    assert abs(found[:, 0].mean()) < 3 * found[:, 0].std() / np.sqrt(200)
    assert np.mean((found[:, 1] <= 0) & (found[:, 2] >= 0)) > 0.9


def test_nearest_distances_are_scipys_and_zero_for_a_copy() -> None:
    real, fake = normal(0, 30, 7), normal(1, 9, 7)
    np.testing.assert_allclose(nearest_distances(real, fake), cdist(fake, real).min(axis=1) / np.sqrt(7))
    assert nearest_distances(real, real[[4, 8]]).tolist() == [0, 0]


def test_pairwise_distances_are_scipys_and_zero_for_a_copy() -> None:
    one, two = normal(0, 40, 7) + 50, normal(1, 30, 7) + 50
    found = pairwise_distances(one, np.concatenate([two, one[:3]]))
    np.testing.assert_allclose(found[:, :30], cdist(one, two) / np.sqrt(7), rtol=1e-8)
    assert np.diag(found[:, 30:]).tolist() == [0, 0, 0]


def test_the_nearest_other_image_is_never_the_image_itself() -> None:
    features, rows = normal(0, 30, 7), np.array([3, 17, 4])
    features[17] = features[5]
    others = [np.delete(cdist(features[[row]], features)[0], row).min() / np.sqrt(7) for row in rows]
    np.testing.assert_allclose(nearest_others(features, rows), others)
    assert nearest_others(features, rows)[1] == 0


# Inception score


def test_inception_score_of_worked_examples() -> None:
    assert inception_score(np.eye(3).repeat(4, axis=0)) == pytest.approx(3)
    assert inception_score(np.full((5, 4), 0.25)) == pytest.approx(1)
    assert inception_score(np.array([[1.0, 0], [1, 0]])) == pytest.approx(1), "clear, but of one class only"
    # p(y) is even, so the mean divergence is 0.9 ln 1.8 + 0.1 ln 0.2
    expected = np.exp(0.9 * np.log(1.8) + 0.1 * np.log(0.2))
    assert inception_score(np.array([[0.9, 0.1], [0.1, 0.9]])) == pytest.approx(expected)


def test_inception_score_of_splits_mixes_sets_ordered_by_class() -> None:
    ordered = np.eye(2).repeat(6, axis=0)
    assert inception_score(ordered, splits=3) == pytest.approx(2)
    parts = np.array([[1.0, 0], [0.9, 0.1], [1, 0], [0.1, 0.9]])
    assert inception_score(parts, splits=2) == pytest.approx((1 + inception_score(parts[1::2])) / 2)
    with pytest.raises(DataError, match="5 parts"):
        inception_score(parts, splits=5)


# Grey values


def test_histograms_count_voxels_and_their_distances_are_scipys() -> None:
    images = torch.tensor([[-1.0, -0.6, 0.3, 1.0], [-1.2, 0.6, 0.7, 0.9]]).reshape(2, 1, 2, 2)
    assert intensity_histograms(images, bins=4).tolist() == [[0.5, 0, 0.25, 0.25], [0.25, 0, 0, 0.75]]
    one, two = (np.random.default_rng(seed).dirichlet(np.full(32, 0.3)) for seed in (0, 1))
    centres = -60 + (np.arange(32) + 0.5) * 260 / 32
    assert wasserstein_1(one, two, 260 / 32) == pytest.approx(stats.wasserstein_distance(centres, centres, one, two))
    assert jensen_shannon(one, two) == pytest.approx(jensenshannon(one, two, base=2) ** 2)
    assert jensen_shannon(one, one) == 0 and jensen_shannon(np.eye(2)[0], np.eye(2)[1]) == pytest.approx(1)


def test_histogram_distance_of_shifted_images_is_the_shift() -> None:
    images = torch.from_numpy(normal(0, 20, 1, 16, 16)).clamp(-3, 3) / 8
    before, after = (intensity_histograms(part).numpy().mean(axis=0) for part in (images, images + 0.25))
    assert wasserstein_1(before, after, 200 / 256) == pytest.approx(25, rel=0.01), "an eighth of a window of 200"


# Power spectra


@pytest.mark.parametrize("dims", [2, 3])
def test_spectrum_of_a_pure_wave_is_one_line(dims: int) -> None:
    side, waves = 16, 5
    along = torch.cos(2 * torch.pi * waves * torch.arange(side) / side)
    image = along.reshape(side, *[1] * (dims - 1)).expand(*[side] * dims)
    spectrum = radial_spectra(image[None, None])[0]
    frequencies = itertools.product(range(-side // 2, side // 2), repeat=dims)
    on_circle = sum(round(sum(f * f for f in frequency) ** 0.5) == waves for frequency in frequencies)
    # |DFT| is half the voxels at +5 and at -5, and 0 elsewhere
    assert len(spectrum) == side // 2
    assert float(spectrum[waves - 1]) == pytest.approx(10 * np.log10(2 * side**dims / 4 / on_circle), abs=1e-3)
    assert spectrum[[n for n in range(side // 2) if n != waves - 1]].max() < -60


def test_spectrum_of_noise_is_its_variance_and_sides_may_differ() -> None:
    images = 0.1 * torch.from_numpy(normal(0, 400, 1, 12, 20))
    np.testing.assert_allclose(radial_spectra(images).mean(dim=0), 10 * np.log10(0.01), atol=1.2)
    twice, once = radial_spectra(2 * images).numpy(), radial_spectra(images).numpy()
    assert spectrum_distance(once, twice) == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert spectrum_distance(once, once) == 0
    assert torch.isfinite(radial_spectra(torch.zeros(1, 1, 8, 8))).all()


# Radiomics

HARALICK = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]])
"""The image of Haralick, Shanmugam & Dinstein 1973, figure 3, and its four matrices."""


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ((0, 1), [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]]),
        ((1, 0), [[6, 0, 2, 0], [0, 4, 2, 0], [2, 2, 2, 2], [0, 0, 2, 0]]),
        ((1, 1), [[2, 1, 3, 0], [1, 2, 1, 0], [3, 1, 0, 2], [0, 0, 2, 0]]),
        ((1, -1), [[4, 1, 0, 0], [1, 2, 2, 0], [0, 2, 4, 1], [0, 0, 1, 0]]),
    ],
)
def test_co_occurrence_of_haralicks_image(step: tuple[int, int], expected: list[list[int]]) -> None:
    both = torch.stack([HARALICK.flip(0), HARALICK])
    assert co_occurrence(both, step, num_levels=4)[1].tolist() == expected


def test_co_occurrence_features_of_haralicks_image() -> None:
    counts = co_occurrence(HARALICK[None], (0, 1), num_levels=4)
    contrast, correlation, energy, homogeneity, entropy = co_occurrence_features(counts)[0].tolist()
    assert contrast == pytest.approx((4 * 1 + 2 * 4 + 2 * 1) / 24)
    assert energy == pytest.approx((16 + 4 + 1 + 4 + 16 + 1 + 36 + 1 + 1 + 4) / 24**2)
    assert homogeneity == pytest.approx((16 + 4 / 2 + 2 / 5 + 2 / 2) / 24)
    i, j = np.array(list(itertools.product(range(4), repeat=2))).repeat(counts.flatten().numpy(), axis=0).T
    assert correlation == pytest.approx(np.corrcoef(i, j)[0, 1])
    assert entropy == pytest.approx(stats.entropy(counts.flatten().numpy(), base=2))


def test_a_volume_has_thirteen_directions_and_each_counts_its_pairs() -> None:
    steps = directions(3)
    assert len(steps) == 13 and len(directions(2)) == 4
    assert not {tuple(-s for s in step) for step in steps} & set(steps)
    volume = np.random.default_rng(0).integers(0, 3, (3, 4, 3))
    step = (1, -1, 1)
    expected = np.zeros((3, 3))
    for place in np.ndindex(*volume.shape):
        other = tuple(p + s for p, s in zip(place, step, strict=True))
        if all(0 <= o < side for o, side in zip(other, volume.shape, strict=True)):
            expected[volume[place], volume[other]] += 1
            expected[volume[other], volume[place]] += 1
    assert co_occurrence(torch.from_numpy(volume)[None], step, 3)[0].tolist() == expected.tolist()


@pytest.mark.parametrize("shape", [(9, 12), (6, 5, 7)])
def test_radiomics_are_numpys_and_scipys(shape: tuple[int, ...]) -> None:
    images = normal(0, 3, 1, *shape).clip(-2, 2) / 2.5
    found = dict(zip(NAMES, radiomics(torch.from_numpy(images))[1].tolist(), strict=True))
    grey = images[1, 0]
    size = np.sqrt(sum(slope**2 for slope in np.gradient(grey)))
    share = np.histogram(grey, bins=16, range=(-1, 1))[0] / grey.size
    expected = {
        "mean": grey.mean(), "standard_deviation": grey.std(), "skewness": stats.skew(grey, axis=None),
        "kurtosis": stats.kurtosis(grey, axis=None, fisher=False), "p10": np.percentile(grey, 10),
        "median": np.median(grey), "p90": np.percentile(grey, 90), "entropy": stats.entropy(share, base=2),
        "gradient_mean": size.mean(), "gradient_standard_deviation": size.std(),
        "gradient_p90": np.percentile(size, 90),
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_radiomics_of_a_flat_image_are_finite_and_channels_are_averaged() -> None:
    flat = radiomics(torch.full((1, 1, 8, 8), 0.3))
    assert torch.isfinite(flat).all()
    image = torch.from_numpy(normal(0, 1, 1, 8, 8)) / 4
    torch.testing.assert_close(radiomics(torch.cat([image * 2, image * 0], dim=1)), radiomics(image))


def test_radiomics_distance_counts_standard_deviations() -> None:
    real = normal(0, 50, 3) * [1, 10, 100]
    real[:, 2] = 7
    scale = real.std(axis=0)
    assert radiomics_distance(real, real + np.array([2, 1, 0]) * scale) == pytest.approx(2**2 + 1**2)
    assert radiomics_distance(real, real) < 1e-9


# Likeness within a set


def test_ms_ssim_interval_is_the_literal_jackknife() -> None:
    images = torch.from_numpy(normal(0, 5, 1, 16, 16)).float() / 3 + torch.linspace(-0.5, 0.5, 16)
    value = {pair: float(ms_ssim(images[[pair[0]]], images[[pair[1]]])) for pair in itertools.combinations(range(5), 2)}
    without = [np.mean([v for pair, v in value.items() if left_out not in pair]) for left_out in range(5)]
    margin = 2.776 * np.sqrt(4 / 5 * np.sum((without - np.mean(without)) ** 2))  # Student, 4 degrees of freedom
    mean, low, high = pairwise_ms_ssim_interval(images, 100, seed=0)
    assert mean == pytest.approx(np.mean(list(value.values())), abs=1e-6) == pairwise_ms_ssim(images, 100, seed=0)
    assert high - mean == pytest.approx(margin, rel=1e-3)
    assert low == pytest.approx(max(mean - margin, 0), rel=1e-3)
    assert np.isnan(pairwise_ms_ssim_interval(images[:2], 5, seed=0)[1])


# Extractors


@pytest.mark.parametrize(("network", "shape"), [("small_cnn", (16, 16)), ("resnet18", (16, 16, 16))])
def test_classifier_features_are_what_its_last_layer_sees(network: str, shape: tuple[int, ...]) -> None:
    net = make_classifier(network, spatial_dims=len(shape), channels=1, num_classes=3).eval()
    images = torch.from_numpy(normal(0, 5, 1, *shape)).float()
    extractor = ClassifierFeatures(net)
    features = extractor.extract(images, batch_size=2)
    with torch.no_grad():
        torch.testing.assert_close(extractor.last(features), net(images), rtol=1e-4, atol=1e-5)
    assert extractor.name(2) == "the run's classifier"
    assert not extractor.last._forward_pre_hooks


def scripted(net: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(net, torch.zeros(2, 1, 8, 8)).save(path)
    return path


def test_the_users_own_weights_give_features_or_a_clear_error(tmp_path: Path) -> None:
    images = torch.from_numpy(normal(0, 5, 1, 8, 8)).float()
    pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    own = ScriptedFeatures(scripted(pooled, tmp_path / "own.pt"), "0123456789abcdef")
    torch.testing.assert_close(own.extract(images, batch_size=2), pooled(images))
    assert own.name(2) == "own weights 0123456789ab"
    with pytest.raises(DataError, match="fails on images of shape"):
        own.extract(torch.zeros(2, 1, 1, 8, 8, 8))
    maps = ScriptedFeatures(scripted(torch.nn.AvgPool2d(2), tmp_path / "maps.pt"), "0")
    with pytest.raises(DataError, match=r"gives shape \[5, 1, 4, 4\]"):
        maps.extract(images)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(DataError, match=r"text\.pt: is not a TorchScript file"):
        ScriptedFeatures(tmp_path / "text.pt", "0")


def nearness(distance: list[float], which: list[int], patients: int) -> Nearness:
    return Nearness(np.array(distance), np.array(which), patients)


def test_near_copies_by_hand() -> None:
    """Unseen images lie 2 away, in the median: below 0.5 is a near copy, and below half of 0.7 a copy. Wilson 1927."""
    usual = np.array([0.4, 2.0, 2.0, 2.0, 3.0])
    to_members, to_unseen = nearness([0.0, 0.49, 0.51, 2.0], [7, 3, 3, 3], 10), nearness([0.7, 0.9, 3, 3], [0] * 4, 5)
    found = near_copies(to_members, to_unseen, usual)
    assert (found.near.tolist(), found.copies.tolist()) == ([True, True, False, False], [True, False, False, False])
    assert (found.share, found.control, found.patients, found.unseen) == (0.5, 0.2, (2, 10), (0, 5))
    half = 1.96 * np.sqrt(0.25 / 4 + 1.96**2 / (4 * 16)) / (1 + 1.96**2 / 4)
    assert (found.low, found.high) == (pytest.approx(0.5 - half, abs=1e-4), pytest.approx(0.5 + half, abs=1e-4))
    none = near_copies(nearness([0.5] * 20, [0] * 20, 1), nearness([9.0] * 20, [0] * 20, 1), np.full(3, 2.0))
    assert (none.share, none.low) == (0, 0) and none.high == pytest.approx(1.96**2 / (20 + 1.96**2), rel=1e-3)
    for images, unseen in ((3, 0), (0, 3)):
        some = nearness([0] * images, [0] * images, 1)
        with pytest.raises(ValueError, match="unseen images"):
            near_copies(some, some, np.ones(unseen))


def test_images_that_fall_as_near_to_unseen_patients_are_no_copies() -> None:
    """An image at 0.3 is a copy where no image comes nearer than 0.7 to an unseen patient, and none where one has 0.5.

    Without any unseen patient who is not a training patient's twin, all near copies are copies.
    """
    usual, one = np.full(9, 2.0), nearness([0.3, 2.0], [0, 1], 4)
    for unseen, copies in ((0.7, 1), (0.5, 0)):
        assert near_copies(one, nearness([3.0, unseen], [0, 0], 4), usual).copies.sum() == copies
    nobody = Nearness(np.full(2, np.inf), np.zeros(2, dtype=int), 0)
    assert near_copies(one, nobody, usual).copies.sum() == 1


def test_the_chance_of_near_training_patients_is_that_of_fisher() -> None:
    """The lady tasting tea (Fisher 1935): 3 or more of 4 by chance 17/70; and scipy's own exact test."""
    assert chance_of_near((3, 4), (1, 4)) == pytest.approx(17 / 70)
    for near, unseen in (((6, 120), (0, 120)), ((9, 40), (3, 35)), ((0, 10), (0, 10))):
        table = [[near[0], near[1] - near[0]], [unseen[0], unseen[1] - unseen[0]]]
        assert chance_of_near(near, unseen) == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue)
