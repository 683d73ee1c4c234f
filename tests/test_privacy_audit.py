"""The attacks as stages, and the gate over them: planted leaks are refused, healthy images pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audits import CLASSES, DEFAULT, audited, config, fresh, of_a_healthy_generator, shown

from pipeline.adversarial import fit
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.config.experiment import ReleaseConfig
from pipeline.config.loading import validate_experiment
from pipeline.config.privacy import PrivacyConfig, attack_names
from pipeline.core.errors import ConfigError, LeakageError, RefusedError
from pipeline.core.metrics import read_metrics
from pipeline.core.records import Record
from pipeline.data.batches.dataset import open_dataset
from pipeline.privacy import attack_stage
from pipeline.privacy.attack import Candidates, Images, Target
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.cohort import cohort_of
from pipeline.privacy.outcome import outcome_of
from pipeline.verdict.release import release_verdict

MakeInputs = Callable[..., dict[str, Path]]
PLACE = ReleaseConfig()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return of_a_healthy_generator(tmp_path_factory.mktemp("healthy"))


def test_a_generator_that_remembers_nobody_may_go(healthy: list[Record]) -> None:
    found = release_verdict(healthy, PLACE, DEFAULT)
    assert found["decision"] == "release", found["reasons"]
    assert "a membership advantage of 0.2 is excluded" in found["reasons"][0]
    assert found["evidence"]["weights"] == "w1"
    by_attack = found["evidence"]["attacks"]
    assert [name for name in DEFAULT.attacks if by_attack[name]["blind"]] == ["match"]  # it takes out no shift
    assert found["reasons"][0].startswith("By distance, calibrated-distance, training patients")
    assert found["reasons"][1].startswith("match: would not see")
    assert found["evidence"]["attacks"]["distance"]["planted"]["value"] > 0.99
    assert found["evidence"]["attacks"]["memorisation"]["near_copies"] == 0


def _planted(change: str, train: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(4)
    some = train[random.integers(0, len(train), 200)].astype(float)
    changed = {
        "replayed": some,
        "noisy": some + 12 * random.standard_normal(some.shape),
        "shifted": np.roll(some, 1, axis=-1),
        "mirrored": some[..., ::-1],
        "darker": 0.6 * some,
        "a twentieth": np.concatenate([some[:10], fresh(190)]),
    }[change]
    return np.rint(changed.clip(0, 255)).astype(np.uint8)


@pytest.mark.parametrize("change", ["replayed", "noisy", "shifted", "mirrored", "darker", "a twentieth"])
def test_planted_leaks_are_refused(noise_inputs: MakeInputs, tmp_path: Path, change: str) -> None:
    inputs = noise_inputs(num=120)
    images = _planted(change, np.array(open_dataset(inputs["prepare"]).images[:60]))
    found = release_verdict(audited(shown(inputs, tmp_path, images), tmp_path), PLACE, DEFAULT)
    assert found["decision"] == "refuse", found["reasons"]


def test_a_member_that_counts_as_unseen_is_refused(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = shown(noise_inputs(num=120), tmp_path, fresh(60))
    manifest = pd.read_csv(inputs["split"] / "manifest.csv", dtype=str)
    manifest.loc[119, "patient_id"] = "p0"  # a test image of a training patient
    manifest.to_csv(inputs["split"] / "manifest.csv", index=False)
    with pytest.raises(LeakageError, match="1 patient"):
        attack_stage.run(config(), inputs, tmp_path)


def test_images_of_other_weights_are_not_attacked(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="other weights"):
        attack_stage.run(config(), shown(noise_inputs(num=120), tmp_path, fresh(60), weights="w2"), tmp_path)


def test_too_few_unseen_patients_are_no_audit(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = shown(noise_inputs(num=30), tmp_path, fresh(60))
    record = replace(attack_stage.run(config(), inputs, tmp_path), fold=0, gan_seed=0, variant="distance")
    found = release_verdict([record], PLACE, PrivacyConfig(attacks=("distance",)))
    assert found["decision"] == "not_audited"
    assert any("15 patients that the generator never saw" in reason for reason in found["reasons"])
    assert read_metrics(tmp_path) == []


def test_an_audit_too_weak_to_see_does_not_pass(healthy: list[Record]) -> None:
    """The same figures cannot exclude a tenth of the tolerance."""
    found = release_verdict(healthy, PLACE, DEFAULT.model_copy(update={"advantage": 0.02}))
    assert found["decision"] == "not_audited"
    assert found["reasons"][0].startswith("No leak was seen, but there are too few patients")
    assert found["reasons"][1].count("by patient: ") >= 2 and len(found["reasons"]) == 3  # one sentence for all attacks
    assert "With 150 training and 150 unseen patients" in found["reasons"][-1]


def changed(record: Record, rate: dict[str, float], **outcome: float) -> Record:
    """The record of an attack with another AUROC, and other figures."""
    found = record.extra["outcome"]
    rates = [one | (rate if one["name"] == "auroc" else {}) for one in found["rates"]]
    return replace(record, extra=record.extra | {"outcome": found | {"rates": rates} | outcome})


@pytest.mark.parametrize(
    ("difference", "error", "decision"),
    [
        (0.20, 0.03, "refuse"),  # 0.12 to 0.28: shown, and not below 0.14
        (0.08, 0.01, "release"),  # 0.05 to 0.10: shown, and tolerated
        (0.09, 0.05, "not_audited"),  # -0.04 to 0.17: neither shown nor excluded
        (-0.05, 0.03, "release"),
    ],
)
def test_the_interval_decides(healthy: list[Record], difference: float, error: float, decision: str) -> None:
    quiet = [
        changed(one, {"difference": -0.1, "error": 0.01}, standing_out_p=1.0) if one.kind == "attack" else one
        for one in healthy
    ]
    first = changed(quiet[0], {"difference": difference, "error": error})
    found = release_verdict([first, *quiet[1:]], PLACE, DEFAULT)
    assert found["decision"] == decision
    assert ("It is not chance." in found["reasons"][0]) == (decision == "refuse")


@pytest.mark.parametrize(("chance", "decision"), [(0.02 / 7 - 1e-4, "refuse"), (0.02 / 7 + 1e-4, "release")])
def test_patients_who_stand_out_refuse(healthy: list[Record], chance: float, decision: str) -> None:
    """Three attacks with two tests each, and patients with near copies, share 0.02."""
    quiet = [
        changed(one, {"difference": -0.1, "error": 0.01}, standing_out_p=1.0) if one.kind == "attack" else one
        for one in healthy
    ]
    first = changed(quiet[0], {}, standing_out=9, standing_out_p=chance)
    found = release_verdict([first, *quiet[1:]], PLACE, DEFAULT)
    assert found["decision"] == decision
    assert ("9 of 150 training patients stand out" in found["reasons"][0]) == (decision == "refuse")


def test_the_smallest_leak_that_is_shown(healthy: list[Record]) -> None:
    """One-sided 0.02 / 7 and four in five: 2.763 + 0.842 errors; C(150, k) / C(300, k) is below it from 9 on."""
    quiet = [changed(one, {"error": 0.04}) if one.kind == "attack" else one for one in healthy]
    smallest = release_verdict(quiet, PLACE, DEFAULT)["evidence"]["attacks"]["smallest"]
    assert smallest["auroc_difference"] == pytest.approx(3.6048 * 0.04, abs=1e-4)
    assert [comb(150, k) / comb(300, k) < 0.02 / 7 for k in (8, 9)] == [False, True] and smallest["patients"] == 9


def looked(records: list[Record], **figures: float) -> list[Record]:
    return [replace(one, figures=one.figures | figures) if one.kind == "privacy" else one for one in records]


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"copies": 1}, "1 of 200 synthetic images are copies"),
        ({"near_patients": 9, "near_unseen": 0}, "near copies of 9 of 150 training patients' images"),
        ({"near_patients": 8, "near_unseen": 0}, ""),  # C(150, 8) / C(300, 8) is above 0.02 / 7
        ({"near_patients": 20, "near_unseen": 14}, ""),
    ],
)  # fmt: skip
def test_near_copies_refuse_beyond_chance(healthy: list[Record], figures: dict[str, float], reason: str) -> None:
    found = release_verdict(looked(healthy, **figures), PLACE, DEFAULT)
    assert found["decision"] == ("refuse" if reason else "release")
    assert reason in found["reasons"][0]


def test_near_copies_by_an_older_rule_release_nothing(healthy: list[Record]) -> None:
    older = [replace(one, figures={"near_copies": 0.0}) if one.kind == "privacy" else one for one in healthy]
    found = release_verdict(older, PLACE, DEFAULT)
    assert found["decision"] == "not_audited" and "older rule" in found["reasons"][0]


def test_attacks_that_would_see_no_leak_clear_nobody(healthy: list[Record]) -> None:
    def blinded(record: Record) -> Record:
        if record.kind != "attack":
            return record
        return replace(record, extra=record.extra | {"planted": record.extra["planted"] | {"difference": 0.05}})

    found = release_verdict([*map(blinded, healthy)], PLACE, DEFAULT)
    assert found["decision"] == "not_audited" and "blind" in found["reasons"][0]


def test_what_was_not_made_is_told(healthy: list[Record]) -> None:
    look = [record for record in healthy if record.kind == "privacy"]
    found = release_verdict(look, PLACE, DEFAULT)
    assert found["decision"] == "not_audited"
    assert "distance, calibrated-distance, match" in found["reasons"][0]
    assert release_verdict([], PLACE, PrivacyConfig(attacks=()))["decision"] == "not_audited"
    other = release_verdict(healthy, ReleaseConfig(gan_seed=1), DEFAULT)
    assert other["decision"] == "not_audited"  # another generator was audited, not the one to be released


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"digest": "other"}, "of other weights than the generator has now"),
        ({"inputs": {"prepare": "p", "split": "t"}}, "other patients for members"),
    ],
)
def test_an_audit_of_another_generator_refuses(healthy: list[Record], changed: dict[str, Any], said: str) -> None:
    gan = Record("fit-gan", fold=0, gan_seed=0, digest="g", inputs={"prepare": "p", "split": "s"})
    assert release_verdict([*healthy, gan], PLACE, DEFAULT)["decision"] == "release"
    found = release_verdict([*healthy, replace(gan, **changed)], PLACE, DEFAULT)
    assert found["decision"] == "refuse" and said in found["reasons"][0]


def test_parts_of_different_audits_refuse(healthy: list[Record]) -> None:
    first, *others = healthy
    for odd in (
        replace(first, extra=first.extra | {"weights": "w2"}),
        replace(first, inputs=first.inputs | {"synthesise": "z"}),
    ):
        assert release_verdict([odd, *others], PLACE, DEFAULT)["decision"] == "refuse"


def test_an_attack_for_information_has_no_say(healthy: list[Record]) -> None:
    """The discriminator tells all members, and the release stands."""
    member = np.arange(300) < 150
    outcome = outcome_of(1.0 * member, member, np.zeros(300), np.arange(300), np.random.default_rng(0))
    extra = {"outcome": outcome.as_json(), "planted": None, "lacking": "", "weights": "w1"}
    known = replace(healthy[0], variant="discriminator", extra=extra | {"gates": ATTACKS["discriminator"].gates})
    both = DEFAULT.model_copy(update={"attacks": (*DEFAULT.attacks, "discriminator")})
    assert release_verdict([*healthy, known], PLACE, both)["decision"] == "release"
    gating = replace(known, extra=extra | {"gates": True})
    assert release_verdict([*healthy, gating], PLACE, both)["decision"] == "refuse"


def test_attacks_are_told_nobodys_membership(noise_inputs: MakeInputs) -> None:
    """Candidates come in the data set's order, and the pool counts as members where the generator learned from it."""
    inputs = noise_inputs(num=120)
    cohort = cohort_of(inputs, 0, pool=False, most=1000, seed=0)
    assert list(cohort.candidates.images.rows) == list(range(120)) and cohort.member.sum() == 60
    splits = pd.read_csv(inputs["split"] / "splits.csv")
    splits.loc[50:59, "split"] = "unlabelled"
    splits.to_csv(inputs["split"] / "splits.csv", index=False)
    assert cohort_of(inputs, 0, pool=False, most=1000, seed=0).member.sum() == 50
    pooled = cohort_of(inputs, 0, pool=True, most=1000, seed=0)
    assert pooled.member.sum() == 60 and set(pooled.candidates.label) == {""}


def test_of_many_patients_whole_ones_are_drawn(noise_inputs: MakeInputs) -> None:
    inputs = noise_inputs(num=120)
    table = pd.read_csv(inputs["prepare"] / "manifest.csv")
    pairs = table.assign(patient_id=[f"p{i // 2}" for i in range(120)])
    pairs.to_csv(inputs["prepare"] / "manifest.csv", index=False)
    cohort = cohort_of(inputs, 0, pool=False, most=21, seed=0)
    assert (cohort.member.sum(), (~cohort.member).sum()) == (20, 20)
    assert (np.bincount(cohort.candidates.patient) == 2).all()


def _candidates(inputs: dict[str, Path]) -> Candidates:
    dataset = open_dataset(inputs["prepare"])
    return Candidates(Images(dataset, np.arange(24)), dataset.manifest["label"].to_numpy(dtype=str), np.arange(24))


def test_density_is_counted_by_hand(noise_inputs: MakeInputs) -> None:
    """An image that is shown four times scores four times log(1000) more than its like that is not."""
    inputs = noise_inputs(num=24)
    dataset = open_dataset(inputs["prepare"])
    four = Images(dataset, np.array([0, 0, 0, 0, *range(1, 12)]))
    from pipeline.core.compute import Hardware

    score = ATTACKS["density"].scores(Target(four, DEFAULT, Hardware("cpu", "float32"), 0), _candidates(inputs))
    assert score[0] - 4 * np.log(1000) == pytest.approx(score[1] - np.log(1000), abs=15)
    assert score[:12].min() > score[12:].max()


@pytest.mark.parametrize("attack", ["latent-inversion", "discriminator"])
def test_attacks_on_the_nets_score_images(noise_inputs: MakeInputs, tmp_path: Path, attack: str) -> None:
    """A generator's own images are found back better than fresh ones; the discriminator scores them all."""
    inputs = noise_inputs(num=48)
    gan = SnganConfig(
        num_images=64, batch_size=8, generator_width=4, discriminator_width=4, latent_dim=6, snapshots=1, checkpoints=1,
    )  # fmt: skip
    settings = fit.FitConfig(
        gan=gan, classes=CLASSES, positive=("disease",), fold=0, gan_seed=0, seed=3, device="cpu",
        precision="float32", deterministic=False,
    )  # fmt: skip
    place = tmp_path / "fit-gan"
    place.mkdir()
    fit.run(settings, inputs, place)
    from pipeline.core.compute import Hardware
    from pipeline.synthesis.generate import TrainedGenerator

    own = np.stack([image for _, image in TrainedGenerator(place, inputs).images("normal", 12, 1)])
    dataset = open_dataset(inputs["prepare"])
    stored = dataset.scaling.to_stored(dataset.scaling.to_physical(own))
    images = np.concatenate([stored, dataset.images[:12]])
    known = Candidates(Images(replace(dataset, images=images), np.arange(24)), np.array(["normal"] * 24), np.arange(24))
    target = Target(
        Images(dataset, np.arange(2)), PrivacyConfig(inversion_steps=60), Hardware("cpu", "float32"), 0,
        inputs | {"fit-gan": place},
    )  # fmt: skip
    score = ATTACKS[attack].scores(target, known)
    assert score.shape == (24,) and np.isfinite(score).all()
    if attack == "latent-inversion":
        assert score[:12].min() > score[12:].max()


def test_rows_name_no_patient(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = shown(noise_inputs(num=120), tmp_path, fresh(60))
    record = attack_stage.run(config(), inputs, tmp_path)
    rows = (tmp_path / "metrics.csv").read_text(encoding="utf-8") + json.dumps([record.extra, record.figures])
    assert "image-" not in rows and '"p1' not in rows
    metrics = {row.metric: row for row in read_metrics(tmp_path)}
    assert metrics["membership_tpr_at_fpr_0.01"].value == ""
    assert metrics["membership_tpr_at_fpr_0.01"].detail.startswith("not given: 60 unseen, and 100 are needed")
    assert float(metrics["planted_auroc"].value) > 0.99


def test_an_unknown_attack_is_named_with_the_nearest() -> None:
    data = {"source": {"kind": "phantom"}, "classes": ["cyst", "metastasis"], "positive": ["metastasis"]}
    with pytest.raises(ConfigError, match=r"there is no attack distanse.*did you mean distance"):
        validate_experiment({"name": "t", "data": data, "privacy": {"attacks": ["distanse"]}}, "t")
    more = {"attribute", "density", "discriminator", "embedding", "latent-inversion", "linkage", "lira"}
    assert {*DEFAULT.attacks} | more == set(attack_names())
