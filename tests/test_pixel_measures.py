"""Figures of anomaly maps beside masks: worked cases, and what the stage writes of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.anomaly import detect
from pipeline.anomaly.detect import DetectConfig
from pipeline.config.anomaly import AnomalyConfig
from pipeline.core.metrics import MetricRow, read_metrics
from pipeline.measures.pixels import dice, dice_interval, dice_threshold, pixel_figures, pixel_intervals
from pipeline.verdict.pixel_means import mean_pixel_rows

MakeInputs = Callable[..., dict[str, Path]]


@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 4)])
def test_pixel_auroc_is_scikit_learns_with_and_without_ties(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    truth = random.random((4, *shape)) < 0.2
    for decimals in (1, 8):
        maps = (random.normal(0, 1, truth.shape) + truth).round(decimals)
        expected = roc_auc_score(truth.ravel(), maps.ravel())
        assert pixel_figures(maps, truth).auroc == pytest.approx(expected, abs=1e-12)


def test_overlap_counts_regions_alike_whatever_their_size() -> None:
    """One region of 4 pixels that is found and one of 1 that is missed: half the overlap, from the first call on."""
    truth = np.zeros((1, 4, 10), dtype=bool)
    truth[0, :2, :2], truth[0, 3, 9] = True, True
    maps = np.zeros(truth.shape)
    maps[0, :2, :2] = 2
    maps[0, 3, 9] = -1  # called when all the rest is
    found = pixel_figures(maps, truth)
    # (0, 0), (0, 1/2), (1, 1/2), (1, 1): 1/2 all the way to 0.3
    assert found.aupro == pytest.approx(0.5)
    assert found.auroc == pytest.approx(4 / 5)
    maps[0, 3, 9] = 3
    assert pixel_figures(maps, truth).aupro == 1.0


def test_overlap_is_integrated_to_the_limit_between_two_thresholds() -> None:
    """10 normal pixels, one region of 2: points (0, 1/2), (0.2, 1/2), (0.6, 1), (1, 1)."""
    maps = np.array([[9.0, 8, 8, 7, 7, 7, 7, 7, 1, 1, 1, 1]])
    truth = np.array([[True, *[False] * 6, True, *[False] * 4]])
    # the second anomalous pixel ties with four normal ones
    points = [(0.0, 0.5), (0.2, 0.5), (0.3, 0.5 + 0.5 * 0.1 / 0.4)]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    assert pixel_figures(maps, truth).aupro == pytest.approx(area / 0.3)


def test_overlap_of_many_thresholds_is_that_of_the_plain_definition() -> None:
    random = np.random.default_rng(3)
    truth = np.zeros((6, 12, 12), dtype=bool)
    for image, (top, left, side) in zip(truth, random.integers(1, 6, (6, 3)), strict=True):
        image[top : top + side, left : left + side] = True  # one region an image
    maps = random.normal(0, 1, truth.shape) + 1.5 * truth
    curve = [(0.0, 0.0)]
    for threshold in np.sort(maps.ravel())[::-1]:
        called = maps >= threshold
        shares = [called[i][truth[i]].mean() for i in range(6)]
        curve.append((float((called & ~truth).sum() / (~truth).sum()), float(np.mean(shares))))
    along, height = map(np.array, zip(*curve, strict=True))
    fine = np.linspace(0, 0.3, 200_001)
    expected = np.interp(fine, along, height).mean() / 1
    assert pixel_figures(maps, truth).aupro == pytest.approx(expected, abs=1e-4)


def test_regions_touch_across_corners() -> None:
    """Two pixels at a corner are one region: with one of them found, half is covered; two regions elsewhere differ."""
    truth = np.zeros((1, 5, 5), dtype=bool)
    truth[0, 0, 0] = truth[0, 1, 1] = truth[0, 4, 4] = True
    maps = np.where(truth, 0.0, 1.0)
    maps[0, 0, 0] = 2.0
    # regions {(0,0), (1,1)} and {(4,4)}: the first call covers (1/2 + 0) / 2
    assert pixel_figures(maps, truth).aupro == pytest.approx(0.25)


def test_dice_and_its_best_threshold_are_worked_by_hand() -> None:
    maps, truth = np.array([[0.9, 0.8, 0.4, 0.3, 0.1]]), np.array([[True, False, True, False, False]])
    assert dice(maps, truth, 0.8) == pytest.approx(2 * 1 / (2 + 2))
    assert dice(maps, truth, 0.4) == pytest.approx(2 * 2 / (3 + 2))
    assert dice_threshold(maps, truth) == 0.4
    assert np.isnan(dice(maps, np.zeros_like(truth), 2.0))
    random = np.random.default_rng(1)
    truth = random.random((3, 8, 8)) < 0.3
    maps = (random.normal(0, 1, truth.shape) + truth).round(1)
    best = max(dice(maps, truth, one) for one in np.unique(maps))
    assert dice(maps, truth, dice_threshold(maps, truth)) == pytest.approx(best)


def test_what_cannot_be_measured_is_refused() -> None:
    maps, nothing = np.zeros((1, 3, 3)), np.zeros((1, 3, 3), dtype=bool)
    for truth in (nothing, ~nothing):
        with pytest.raises(ValueError, match="anomalous and normal voxels"):
            pixel_figures(maps, truth)
    with pytest.raises(ValueError, match="anomalous voxels"):
        dice_threshold(maps, nothing)
    with pytest.raises(ValueError, match="differ in number or size"):
        pixel_figures(maps, nothing[:, :2])


def planted(inputs: dict[str, Path], *, masks: bool = True) -> None:
    """Give the noise images a common look, and the diseased ones a bright square with its mask.

    The last diseased image has an empty mask, and normal images have masks of something normal.
    """
    folder = inputs["prepare"]
    random = np.random.default_rng(5)
    images = random.integers(80, 100, (24, 1, 12, 12)).astype(np.uint8)
    truth = np.zeros(images.shape, np.uint8)
    truth[1::2, :, 3:7, 4:8] = 1
    images[truth == 1] += 120
    truth[0::2, :, 9:, 9:] = 1
    truth[23] = 0
    np.save(folder / "images.npy", images)
    if masks:
        np.save(folder / "masks.npy", truth)


def detected(inputs: dict[str, Path], out: Path, name: str) -> None:
    config = DetectConfig(
        detector=name, anomaly=AnomalyConfig(detectors=(), seeds=2), classes=("normal", "disease"),
        positive=("disease",), normal=("normal",), fold=0, gan_seed=None, seed=1, device="cpu", precision="float32",
    )  # fmt: skip
    out.mkdir()
    detect.run(config, inputs, out)


def test_a_detector_with_maps_is_measured_where_masks_are(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs()
    planted(inputs)
    detected(inputs, tmp_path / "pca", "pca")
    rows = {row.metric: row for row in read_metrics(tmp_path / "pca")}
    assert set(rows) == {"pixel_auroc", "aupro", "dice"}
    # 3 normal test images and 2 of 3 diseased ones; the squares are 120 grey levels brighter than anything normal
    assert {row.n_images for row in rows.values()} == {"5"} and {row.fold for row in rows.values()} == {"0"}
    assert float(rows["pixel_auroc"].value) > 0.99 and float(rows["aupro"].value) > 0.97
    assert float(rows["dice"].value) > 0.9


def test_without_masks_or_maps_there_are_no_such_figures(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs()
    planted(inputs, masks=False)
    detected(inputs, tmp_path / "pca", "pca")
    assert not (tmp_path / "pca" / "metrics.csv").exists()
    planted(inputs)
    detected(inputs, tmp_path / "knn", "knn")
    assert not (tmp_path / "knn" / "metrics.csv").exists()


def test_figures_of_maps_are_averaged_over_fits() -> None:
    def row(fold: str, value: str, low: str = "", high: str = "") -> MetricRow:
        return MetricRow(
            stage="anomaly", arm="pca", fold=fold, metric="aupro", value=value, ci_low=low, ci_high=high,
            detail="all voxels",
        )  # fmt: skip

    others = [MetricRow(stage="anomaly", arm="pca", fold="0", metric="shift_p", value="0.5")]
    others += [MetricRow(stage="quality", fold="0", metric="dice", value="1")]
    (found,) = mean_pixel_rows([row("0", "0.25"), row("1", "0.75"), *others])
    assert (found.arm, found.metric, found.value, found.fold) == ("pca", "aupro", "0.5", "")
    assert found.detail == "mean of 2 fits; all voxels"
    assert (found.ci_low, found.ci_high) == ("", "")
    (alone,) = mean_pixel_rows([row("0", "0.5", "0.4", "0.7")])
    assert (alone.ci_low, alone.ci_high) == ("0.4", "0.7")
    # two fits of 0.5 and 0.52: t(1) is 12.706, their standard error 0.01; patients add 0.1
    (two,) = mean_pixel_rows([row("0", "0.5", "0.4", "0.6"), row("1", "0.52", "0.42", "0.62")])
    half = (0.1**2 + (12.7062 * 0.01) ** 2) ** 0.5
    assert float(two.ci_low) == pytest.approx(0.51 - half, abs=1e-4)
    assert float(two.ci_high) == pytest.approx(0.51 + half, abs=1e-4)


def maps_of_patients(random: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps whose skill differs from patient to patient: two images each, a square in half of the patients."""
    names = np.repeat([f"p{number}" for number in range(patients)], 2)
    truth = np.zeros((len(names), 12, 12), bool)
    truth[::4, 3:6, 3:6] = True
    skill = np.repeat(random.normal(0.6, 0.6, patients), 2)
    maps = random.normal(size=truth.shape) + truth * skill[:, None, None]
    return maps.astype(np.float32), truth, names


def test_the_intervals_of_maps_hold_the_truth_as_often_as_they_say() -> None:
    truths = pixel_figures(*maps_of_patients(np.random.default_rng(0), 5000)[:2])
    inside = np.zeros(2)
    for draw in range(40):
        random = np.random.default_rng(100 + draw)
        found = pixel_intervals(*maps_of_patients(random, 60), random, 0.05)
        inside += [one.low < truth < one.high for one, truth in zip(found, truths, strict=True)]  # type: ignore[operator]
    # 38 of 40 are meant; fewer than 34 have a chance below 1 %
    assert (inside >= 34).all(), inside


def test_a_drawn_figure_is_that_of_the_images_drawn() -> None:
    """The spread over patients is that of figures worked out afresh from each draw's images."""
    random = np.random.default_rng(3)
    maps, truth, names = maps_of_patients(random, 40)
    found = pixel_intervals(maps, truth, names, random, 0.05)
    cut = 1.5
    of_dice = dice_interval(maps, truth, cut, names, random, 0.05)
    drawn = []
    for _ in range(200):
        chosen = np.concatenate([random.choice(np.arange(start, 40, 2), 20) for start in (0, 1)])
        rows = (2 * chosen[:, None] + [0, 1]).ravel()
        drawn.append((*pixel_figures(maps[rows], truth[rows]), dice(maps[rows], truth[rows], cut)))
    half = 2.023 * np.std(drawn, axis=0, ddof=1)  # t with 39 degrees of freedom
    exact = (*pixel_figures(maps, truth), dice(maps, truth, cut))
    for one, value, width in zip((*found, of_dice), exact, half, strict=True):
        assert one.value == value
        assert (one.high - one.low) / 2 == pytest.approx(width, rel=0.15)  # type: ignore[operator]


def test_few_patients_have_no_interval() -> None:
    random = np.random.default_rng(0)
    maps, truth, names = maps_of_patients(random, 8)
    found = (*pixel_intervals(maps, truth, names, random, 0.05), dice_interval(maps, truth, 1.0, names, random, 0.05))
    assert all(one.low is None and one.high is None for one in found)
