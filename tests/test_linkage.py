"""Linkage by another image of the patient, and guesses of sex from the release: planted truths and healthy sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from audits import config, shown
from clouds import CPU, PRIVACY, clouds, stored
from scipy.stats import ttest_ind

from pipeline.config.privacy import PrivacyConfig
from pipeline.core.errors import DataError
from pipeline.core.metrics import read_metrics
from pipeline.data.batches.dataset import open_dataset
from pipeline.measures.classification import weighted_auroc
from pipeline.privacy import attack_stage, same_patient
from pipeline.privacy.attack import Candidates, Target
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.guessing import guessed, values_of
from pipeline.privacy.outcome import outcome_of

MakeInputs = Callable[..., dict[str, Path]]
PATIENTS, EACH = 44, 3


def people(seed: int) -> np.ndarray:
    """Images [PATIENTS * EACH, 1, 12, 12]: what is the patient's own, and what is the image's own, half as strong."""
    whose, which = clouds(PATIENTS, seed, side=12), clouds(PATIENTS * EACH, seed + 100, side=12)
    return (np.repeat(whose, EACH, axis=0) + 0.5 * which).clip(-1, 1)


def auroc_by_patient(synthetic: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> tuple[float, np.ndarray]:
    """Of linkage, and its scores; the first half of the patients are members, and two more have one image each."""
    monkeypatch.setattr(same_patient, "_STEPS", 40)
    images = np.concatenate([people(1), clouds(2, 50, side=12)])
    patient = np.concatenate([np.repeat(np.arange(PATIENTS), EACH), [PATIENTS, PATIENTS + 1]])
    candidates = Candidates(stored(images), np.array([""] * len(images)), patient)
    score = ATTACKS["linkage"].scores(Target(stored(synthetic), PRIVACY, CPU, 0), candidates)
    found = outcome_of(score, patient < PATIENTS // 2, candidates.label, patient, np.random.default_rng(0), "auroc")
    return float(found.rate("auroc", "patient").value or 0), score


def test_a_replayed_image_is_linked_to_by_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only each member's first image is replayed; those that are linked to it are the other two."""
    first = people(1)[: PATIENTS * EACH // 2 : EACH]
    noise = 0.03 * np.random.default_rng(0).standard_normal(first.shape)
    auroc, score = auroc_by_patient(first + noise, monkeypatch)
    assert auroc > 0.8
    assert np.isnan(score[-2:]).all() and np.isfinite(score[:-2]).all()
    own, others = score[: PATIENTS * EACH // 2 : EACH], score[1 : PATIENTS * EACH // 2 : EACH]
    assert np.median(others) > np.median(own)  # an image that leads to itself alone does not count


def test_fresh_images_link_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0.35 < auroc_by_patient(clouds(40, 77, side=12), monkeypatch)[0] < 0.65


def sexes(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clouds with a bright band on the left or on the right, by sex."""
    sex = np.random.default_rng(seed).integers(0, 2, number)
    images = clouds(number, seed)
    images[sex == 0, ..., 2:4] += 0.35
    images[sex == 1, ..., 10:12] += 0.35
    return images.clip(-1, 1), np.array(["F", "M"])[sex]


@pytest.mark.parametrize("replays", [True, False])
def test_sex_is_read_from_replays_and_not_from_fresh_images(*, replays: bool) -> None:
    images, sex = sexes(160, 3)
    held = stored(images)
    held = replace(held, dataset=replace(held.dataset, manifest=held.dataset.manifest.assign(sex=sex)))
    candidates = Candidates(held, np.array([""] * 160), np.arange(160))
    member = np.arange(160) < 80
    synthetic = images[member] if replays else clouds(80, 9)  # a band is not among what fresh ones have
    sensitive = PrivacyConfig(sensitive=("sex",))
    right = ATTACKS["attribute"].guesses(Target(stored(synthetic), sensitive, CPU, 0), candidates)["sex"]
    found = guessed(right, sex, member, np.arange(160))
    assert found.patients == (80, 80) and found.base == pytest.approx(max(np.mean(sex == "F"), np.mean(sex == "M")))
    assert found.members is not None and found.low is not None and found.high is not None
    if replays:
        assert found.members > 0.9 and found.low > 0
    else:
        assert found.low < 0 < found.high


def test_the_interval_of_guesses_is_welchs() -> None:
    """A patient counts once, with the mean of its images; two of the unseen have no truth."""
    patient = np.array([*np.repeat(np.arange(12), 2), *range(12, 40)])
    right = np.random.default_rng(0).integers(0, 2, len(patient)).astype(float)
    right[-2:] = np.nan
    member = patient < 12
    found = guessed(right, np.array(["x"] * len(patient)), member, patient)
    means = right[:24].reshape(12, 2).mean(axis=1)
    interval = ttest_ind(means, right[24:-2], equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.patients == (12, 26)
    assert guessed(right[:30], np.array(["x"] * 30), member[:30], patient[:30]).refused.startswith("not given: 12")


def test_ages_are_guessed_in_three_bands() -> None:
    held = stored(clouds(31, 0))
    age = [*map(str, range(40, 70)), ""]
    table = held.dataset.manifest.assign(age=age, few=["1", "2"] * 15 + [""])
    candidates = Candidates(replace(held, dataset=replace(held.dataset, manifest=table)), np.array([]), np.arange(31))
    np.testing.assert_array_equal(values_of(candidates, "age"), [*["0"] * 10, *["1"] * 10, *["2"] * 10, ""])
    assert set(values_of(candidates, "few")) == {"1", "2", ""}
    with pytest.raises(DataError, match=r"privacy\.sensitive: the data have no column sex"):
        values_of(candidates, "sex")


def test_guesses_have_rows_beside_their_control(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs(num=120)
    table = pd.read_csv(inputs["prepare"] / "manifest.csv", dtype=str)
    table.assign(sex=["F", "F", "M", "M"] * 30).to_csv(inputs["prepare"] / "manifest.csv", index=False)
    images = np.array(open_dataset(inputs["prepare"]).images[:60])
    attack_stage.run(config("attribute", sensitive=("sex",)), shown(inputs, tmp_path, images), tmp_path)
    rows = {row.metric: row for row in read_metrics(tmp_path) if row.label == "sex"}
    assert set(rows) == {"guessed", "guessed_control", "guessed_base", "guessed_difference"}
    assert float(rows["guessed_base"].value) == 0.5 and rows["guessed_difference"].ci_low != ""
    assert all(row.subgroup == "per patient" and row.n_patients == "120" for row in rows.values())


def test_too_few_patients_with_several_images_are_not_linked(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs(num=120)
    record = attack_stage.run(
        config("linkage"),
        shown(inputs, tmp_path, np.array(open_dataset(inputs["prepare"]).images[:60])),
        tmp_path,
    )
    assert "can try too few of the patients" in record.extra["lacking"]


def test_the_match_is_worked_by_hand() -> None:
    """Voxels 0 and 0.1 of one patient, 0.5 and 0.9 of two more. A synthetic 0.4 is, squared, 0.16 and 0.09 from the
    first, 0.01 from the second, 0.25 from the third: the second's next rival is at 0.09, everybody else's at 0.01."""
    voxels = stored(np.array([0.0, 0.1, 0.5, 0.9]).reshape(4, 1, 1, 1))
    candidates = Candidates(voxels, np.array([""] * 4), np.array([0, 0, 1, 2]))
    target = Target(stored(np.array([0.4]).reshape(1, 1, 1, 1)), PRIVACY, CPU, 0)
    np.testing.assert_allclose(ATTACKS["match"].scores(target, candidates), [-0.15, -0.08, 0.08, -0.24], atol=1e-6)


def test_copies_under_strong_noise_are_matched() -> None:
    """Noise of 0.4 where images have a spread of 0.3: far from everybody, and told from all others all the same."""
    images, member = clouds(120, 3), np.arange(120) < 60
    noisy = images[:60] + 0.4 * np.random.default_rng(0).standard_normal((60, 1, 16, 16))
    candidates = Candidates(stored(images), np.array([""] * 120), np.arange(120))

    def auroc(attack: str, shown: np.ndarray) -> float:
        score = ATTACKS[attack].scores(Target(stored(shown.clip(-1, 1)), PRIVACY, CPU, 0), candidates)
        return float(weighted_auroc(score, member, np.ones((1, 120)))[0])

    assert auroc("match", noisy) > 0.98 > 0.9 > auroc("distance", noisy)
    assert 0.35 < auroc("match", clouds(60, 4)) < 0.65
