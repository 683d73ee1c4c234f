"""How images were acquired: the statistics, the two-sample test, and the stage that compares a fold's test images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import convolve
from scipy.stats import binom

from pipeline.anomaly.shift import Acquired, acquired, read_reference, save_reference, shift_between
from pipeline.anomaly.shift_stage import ShiftConfig, run
from pipeline.core.errors import DataError
from pipeline.core.metrics import read_metrics
from pipeline.core.records import Record
from pipeline.data.phantoms.planted import liver_patch
from pipeline.measures.acquisition import STATISTICS, acquisition_statistics, noise_level
from pipeline.measures.two_sample import least_p, patient_means, two_sample_test

MakeInputs = Callable[..., dict[str, Path]]


@pytest.mark.parametrize("shape", [(96, 96), (24, 24, 24)])
def test_noise_is_its_standard_deviation_whatever_the_slope(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    slope = torch.linspace(-0.4, 0.4, shape[-1]) + torch.linspace(-0.2, 0.2, shape[0]).view(-1, *[1] * (len(shape) - 1))
    images = slope + 0.05 * torch.randn(4, 1, *shape)
    assert noise_level(images).tolist() == pytest.approx([0.05] * 4, rel=0.06)
    assert noise_level(slope.expand(1, 1, *shape)).item() < 1e-6


def test_noise_in_two_dimensions_is_immerkaers_own_formula() -> None:
    image = np.random.default_rng(0).uniform(-0.9, 0.9, (20, 17))
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    response = np.abs(convolve(image, mask))[1:-1, 1:-1]
    expected = math.sqrt(math.pi / 2) / (6 * 18 * 15) * response.sum()
    assert noise_level(torch.from_numpy(image)[None, None]).item() == pytest.approx(expected, rel=1e-6)


def test_values_cut_off_by_the_window_tell_nothing_of_noise() -> None:
    torch.manual_seed(1)
    images = 0.1 * torch.randn(1, 1, 64, 64)
    images[..., :40] = -1.0
    assert noise_level(images).item() == pytest.approx(0.1, rel=0.15)
    assert noise_level(torch.ones(1, 1, 16, 16)).item() == 0.0


def test_statistics_of_an_image_are_what_they_are_called() -> None:
    torch.manual_seed(0)
    for shape in ((16, 16), (8, 8, 8)):
        images = 0.3 * torch.randn(3, 1, *shape).clamp(-3, 3)
        found = acquisition_statistics(images)
        assert found.shape == (3, len(STATISTICS)) and found.dtype == torch.float32
        flat = images.flatten(1).numpy()
        assert found[:, 2].numpy() == pytest.approx(np.median(flat, axis=1), abs=1e-6)
        quartiles = np.percentile(flat, [25, 75], axis=1)
        assert found[:, 3].numpy() == pytest.approx(quartiles[1] - quartiles[0], abs=1e-6)
        one_by_one = torch.cat([acquisition_statistics(image[None]) for image in images])
        torch.testing.assert_close(one_by_one, found)
        twice = acquisition_statistics(images.expand(3, 2, *shape))
        torch.testing.assert_close(twice, found)
    # a sine of 12 periods over 32 voxels lies in the finest octave, one of 6 in the second
    line = torch.arange(32) * (2 * math.pi / 32)
    fine, middle = (
        acquisition_statistics((0.5 * torch.sin(periods * line)).expand(1, 1, 32, 32))[0] for periods in (12, 6)
    )
    assert fine[4] > middle[4] + 10 and middle[5] > fine[5] + 10 and fine[1] > 10 > -10 > middle[1]
    assert fine[1].item() == pytest.approx((fine[4] - fine[5]).item(), abs=1e-4)
    with pytest.raises(ValueError, match="at least 8"):
        acquisition_statistics(torch.zeros(1, 1, 16, 6))


def test_p_values_are_uniform_under_the_null() -> None:
    """Skewed, correlated figures: the share of p-values below a level lies in its binomial interval of 99.9 %."""
    random = np.random.default_rng(0)
    found, alone = [], []
    mixing = random.normal(0, 1, (4, 4))
    for number in range(400):
        values = np.exp(random.normal(0, 1, (26, 4)) @ mixing)
        result = two_sample_test(values[:16], values[16:], permutations=99, seed=number)
        found.append(result.p)
        alone.append(result.p_values)
    for level in (0.05, 0.2, 0.5, 0.8):
        low, high = binom.ppf([0.0005, 0.9995], 400, level)
        assert low <= (np.array(found) <= level + 1e-9).sum() <= high
        shares = (np.array(alone) <= level + 1e-9).sum(axis=0)
        assert (low <= shares).all() and (shares <= high).all()


def test_a_p_value_of_few_patients_is_that_of_all_deals() -> None:
    """With 5 and 3 patients there are 56 deals; their share, reckoned one by one, is what random deals come to."""
    random = np.random.default_rng(4)
    reference, new = random.normal(0, 1, (5, 1)), random.normal(1.2, 1, (3, 1))
    values = np.concatenate([reference, new])
    ranks = np.argsort(np.argsort(values[:, 0]))

    def gap(chosen: tuple[int, ...]) -> float:
        inside = np.isin(np.arange(8), chosen)
        return abs(ranks[inside].mean() - ranks[~inside].mean())

    deals = [gap(chosen) for chosen in combinations(range(8), 3)]
    exact = np.mean([one >= gap((5, 6, 7)) - 1e-12 for one in deals])
    found = two_sample_test(reference, new, permutations=20_000)
    assert found.p_values[0] == pytest.approx(exact, abs=0.015)
    assert least_p(5, 3, 20_000) == pytest.approx(1 / 56)
    assert least_p(4, 4) == pytest.approx(2 / 70)
    assert least_p(100, 100) == 1 / 2000


def test_what_moved_is_named_with_its_direction() -> None:
    random = np.random.default_rng(0)
    reference, new = random.normal(0, 1, (60, 3)), random.normal(0, 1, (40, 3))
    new[:, 1] -= 1.5
    reference[:, 2] = new[:, 2] = 7.0  # a figure that never changes
    found = two_sample_test(reference, new)
    assert found.p <= 0.002
    assert found.p_values[1] <= 0.01 < min(found.p_values[0], found.p_values[2]) and found.p_values[2] == 1
    assert found.directions[1] < 0
    spread = two_sample_test(random.normal(0, 1, (80, 1)), random.normal(0, 4, (80, 1)))
    assert spread.p <= 0.01 < spread.p_values[0]  # spread without a shift: the kernel sees it, ranks do not
    with pytest.raises(ValueError, match="finite"):
        two_sample_test(reference, np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="in each group"):
        two_sample_test(reference, new[:0])


def test_means_are_those_of_patients() -> None:
    values = np.array([[1.0, 10], [3, 20], [5, 60]])
    assert patient_means(values, np.array(["b", "a", "b"])).tolist() == [[3, 20], [3, 35]]


def phantoms(num: int, seed: int, *, diameter: float = 0.0, contrast: float = -40.0, **scanner: float) -> Acquired:
    """Statistics of as many liver patches, [-60, 200] HU as [-1, 1], each of a patient of its own."""
    images = np.stack([
        liver_patch(
            np.random.default_rng([seed, number]), 2, diameter_mm=diameter, contrast_hu=contrast, spacing_mm=3.0,
            noise_hu=scanner.get("noise", 12.0), blur=scanner.get("blur", 1.0),
        ).image
        for number in range(num)
    ])  # fmt: skip
    window = torch.from_numpy(images)[:, None].add(scanner.get("brighter", 0.0) + 60).div(130).sub(1).clamp(-1, 1)
    return acquired([window.float()], np.arange(num))


def test_another_scanner_is_told_and_named() -> None:
    reference = phantoms(60, 0)
    assert not shift_between(reference, phantoms(40, 1)).alarm
    for scanner, expected in (
        ({"noise": 18.0}, "noise up"),
        ({"blur": 1.6}, "fine detail down"),
        ({"brighter": 15.0}, "brightness up"),
    ):
        found = shift_between(reference, phantoms(40, 1, **scanner))
        assert found.alarm and expected in found.moved, (scanner, found)


def test_small_lesions_are_no_other_scanner() -> None:
    """A tenth of the field's width in diameter, 40 HU darker: about 1 % of the area."""
    assert not shift_between(phantoms(60, 0), phantoms(40, 1, diameter=10.0)).alarm


def test_images_without_patients_stand_for_themselves(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 5)
    level = random.normal(0, 1, (40, len(STATISTICS)))
    reference = Acquired(level[patients] + random.normal(0, 3, (200, len(STATISTICS))), patients)
    new = Acquired(random.normal(0, math.sqrt(10), (60, len(STATISTICS))), np.zeros(60))
    found = shift_between(reference, new, singly=True)
    assert found.num_patients == 60 and not found.alarm
    assert shift_between(reference, Acquired(new.statistics, np.arange(60))).alarm  # beside means of five it would be
    save_reference(tmp_path, reference)
    again = read_reference(tmp_path)
    assert again.statistics == pytest.approx(reference.statistics, rel=1e-5)
    assert again.patients.tolist() == patients.tolist()
    (tmp_path / "acquisition.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        read_reference(tmp_path)
    with pytest.raises(DataError, match="nothing to compare"):
        shift_between(reference, Acquired(new.statistics[:0], new.patients[:0]))


def many(noise_inputs: MakeInputs, change: Callable[[np.ndarray, pd.DataFrame], None]) -> dict[str, Path]:
    """160 images, 80 for training, of smooth noise; diseased and normal ones alike but for `change`."""
    inputs = noise_inputs(num=160)
    manifest = pd.read_csv(inputs["split"] / "manifest.csv")
    images = np.random.default_rng(2).normal(120, 20, (160, 1, 12, 12))
    images += np.random.default_rng(3).normal(0, 10, (160, 1, 1, 1))
    change(images, manifest)
    np.save(inputs["prepare"] / "images.npy", images.clip(0, 255).astype(np.uint8))
    return inputs


def compared(inputs: dict[str, Path], out: Path) -> tuple[Record, dict[str, float]]:
    out.mkdir()
    record = run(ShiftConfig(normal=("normal",), fold=0, seed=3), inputs, out)
    rows = read_metrics(out)
    assert {(row.stage, row.metric, row.split, row.fold) for row in rows} == {("anomaly", "shift_p", "test", "0")}
    return record, {row.subgroup: float(row.value) for row in rows}


def test_the_stage_tells_a_shift_from_disease(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    def nothing(images: np.ndarray, manifest: pd.DataFrame) -> None:
        pass

    def brighter(images: np.ndarray, manifest: pd.DataFrame) -> None:
        images[manifest["split"] == "test"] += 30

    def disease(images: np.ndarray, manifest: pd.DataFrame) -> None:
        images[manifest["label"] == "disease"] += 40

    record, p_values = compared(many(noise_inputs, nothing), tmp_path / "alike")
    assert min(p_values.values()) > 0.01 and record.notes == () and record.figures["alarms"] == {"test": False}
    saved = json.loads((tmp_path / "alike" / "acquisition.json").read_text())
    assert len(saved["statistics"]) == 20 and set(saved["patients"]) == set(range(20))

    for name in ("prepare", "split"):
        (tmp_path / "inputs" / name).rename(tmp_path / f"{name}-alike")
    record, p_values = compared(many(noise_inputs, brighter), tmp_path / "brighter")
    assert max(p_values.values()) <= 0.01 and record.figures["alarms"] == {"test": True}
    (note,) = record.notes
    assert "brightness up" in note and "may mean the scanner" in note

    for name in ("prepare", "split"):
        (tmp_path / "inputs" / name).rename(tmp_path / f"{name}-brighter")
    record, p_values = compared(many(noise_inputs, disease), tmp_path / "disease")
    assert p_values["all patients"] <= 0.01 < p_values["normal patients"]
    assert "rather disease than the scanner" in record.notes[0]


def test_too_few_patients_are_said_to_be_too_few(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    record, _ = compared(noise_inputs(num=8), tmp_path / "few")
    assert "too few to tell" in record.notes[0]


def test_labels_of_test_patients_change_nothing_in_the_first_comparison(
    noise_inputs: MakeInputs, tmp_path: Path
) -> None:
    inputs = many(noise_inputs, lambda images, manifest: None)
    _, before = compared(inputs, tmp_path / "before")
    for folder in inputs.values():
        table = pd.read_csv(folder / "manifest.csv", dtype=str)
        table.loc[120:, "label"] = "disease"
        table.to_csv(folder / "manifest.csv", index=False)
    _, after = compared(inputs, tmp_path / "after")
    assert after == {"all patients": before["all patients"]}
