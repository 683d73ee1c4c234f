"""What arms are made of: soft labels, the filled class, curated images, features, and what the stage says of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from arm_stage import (
    CLASSES,
    CPU,
    TRUNK,
    MakeInputs,
    material_of,
    settings,
    stage,
    with_generator,
    with_pool,
)
from sklearn.metrics import roc_auc_score

from pipeline.config.arms import REFERENCE_ARM
from pipeline.core.errors import DataError
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.streams import StoredImages
from pipeline.downstream import curation, features, shortcut, train
from pipeline.downstream.features import TRUNKS
from pipeline.downstream.regimens import regimen_of
from pipeline.supervised.fit import apply_classifier, fit_classifier


@pytest.fixture
def inputs(noise_inputs: MakeInputs, tmp_path: Path) -> dict[str, Path]:
    return with_generator(with_pool(noise_inputs(num=48)), tmp_path)


def test_soft_labels_are_the_mean_of_classifiers_of_the_labelled_images(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(seeds=2)
    material = material_of(inputs, tmp_path / "parts", config, planted=False)
    made = [
        fit_classifier(
            config, [material.real], CLASSES, CPU, classical=True, seed=derive_seed(1, "ensemble", number)
        )
        for number in range(2)
    ]  # fmt: skip
    expected = sum(apply_classifier(net, material.generated, np.arange(24), CPU) for net in made) / 2
    share = regimen_of("pool-gan", config, material).phases[0].shares[1]
    np.testing.assert_allclose(share.soft, expected, atol=1e-6)
    monkeypatch.setattr("pipeline.downstream.material.fit_classifier", lambda *a, **k: pytest.fail("made twice"))
    again = material_of(inputs, tmp_path / "parts", config, planted=False)  # as a resumed stage
    np.testing.assert_array_equal(again.judged_synthetic.soft, share.soft)


def test_pool_gan_takes_ten_fading_images_for_each_real_one(inputs: dict[str, Path], tmp_path: Path) -> None:
    material = material_of(inputs, tmp_path / "parts")
    real, synthetic = regimen_of("pool-gan", settings(), material).phases[0].shares
    assert (real.weight, real.fades) == (1.0, False)
    assert (synthetic.weight, synthetic.fades) == (10.0, True)


def test_the_minority_is_filled_up_to_balance_and_no_further(inputs: dict[str, Path], tmp_path: Path) -> None:
    """7 normal and 3 diseased training images: 4 synthetic diseased ones for every 10 real images, none normal."""
    material = material_of(inputs, tmp_path / "parts")
    filled, last = regimen_of("minority-synthetic", settings(), material).phases
    real, synthetic = filled.shares
    assert (real.weight, synthetic.weight) == (10.0, 4.0)
    assert not real.balanced and not synthetic.balanced and filled.mixup
    assert set(synthetic.dataset.labels(synthetic.rows, CLASSES).tolist()) == {1}
    assert set(synthetic.rows) == set(range(12, 24))
    assert last.shares == (material.real,) and last.head == "alone" and not last.mixup


def test_a_classifier_that_takes_synthetic_for_a_sign_of_the_rare_class_is_found_out(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    material = material_of(inputs, tmp_path / "parts")

    def by_origin(dataset: DataSet, rows: np.ndarray) -> np.ndarray:
        return np.tile([0.1, 0.9] if dataset is material.generated else [0.9, 0.1], (len(rows), 1))

    def by_brightness(dataset: DataSet, rows: np.ndarray) -> np.ndarray:
        bright = dataset.images[rows].reshape(len(rows), -1).mean(axis=1) > 110
        return np.stack([~bright, bright], axis=1).astype(float)

    found = shortcut.called_rare(by_origin, material)
    assert found == {"synthetic": 1.0, "real": 0.0}
    (note,) = shortcut.shortcut_notes(
        "minority-synthetic", [{}, {"called_rare": found}, {"called_rare": {"synthetic": 0.5, "real": 0.1}}]
    )
    assert (
        note.startswith("minority-synthetic: ")
        and "75 % of the synthetic images" in note
        and "but 5 % of the real" in note
    )
    assert shortcut.called_rare(by_brightness, material) == {"synthetic": 0.0, "real": 0.0}
    assert shortcut.shortcut_notes("x", [{"called_rare": {"synthetic": 0.3, "real": 0.2}}]) == ()


def test_the_stage_measures_the_shortcut_of_the_filled_arm_alone(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    arms = ("minority-synthetic", "real+classical+synthetic@1")
    fits = train.run(stage(arms), inputs, out).figures["fits"]
    assert set(fits) == {"minority-synthetic seed 0"}
    assert set(fits["minority-synthetic seed 0"]["called_rare"]) == {"synthetic", "real"}


def test_balanced_classes_have_no_minority(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = with_generator(noise_inputs(num=48), tmp_path)
    with pytest.raises(DataError, match="equally many"):
        regimen_of("minority-synthetic", settings(), material_of(inputs, tmp_path / "parts"))


def test_copies_wrong_classes_and_low_scores_are_filtered_out(inputs: dict[str, Path], tmp_path: Path) -> None:
    real = open_dataset(inputs["prepare"])
    rows = material_of(inputs, tmp_path / "parts").rows("train")
    images = np.load(inputs["synthesise"] / "images.npy")
    images[[0, 12]] = real.images[[rows[0], rows[-1]]]  # copies of a normal and a diseased training image
    np.save(inputs["synthesise"] / "images.npy", images)
    synthetic = open_dataset(inputs["synthesise"])
    asked = np.repeat([0, 1], 12)
    scores = np.stack([1.0 - asked, asked], axis=1)
    scores[[1, 13]] = scores[[13, 1]]
    found = curation.curate(real, rows, synthetic, scores, CLASSES, inputs["fit-gan"])
    assert not found.passed["novelty"][[0, 12]].any()
    assert np.flatnonzero(~found.passed["agreement"]).tolist() == [1, 13]
    logits = curation.discriminator_scores(inputs["fit-gan"], synthetic, asked)
    assert found.passed["score"].sum() == 12
    for own in (slice(0, 12), slice(12, 24)):
        assert logits[own][found.passed["score"][own]].min() > logits[own][~found.passed["score"][own]].max()
    kept = set(found.kept(0))
    assert kept == {i for i in range(24) if all(good[i] for good in found.passed.values())}
    assert found.counts["normal"] == {
        "made": 12, "score": 6, "agreement": 11, "novelty": int(found.passed["novelty"][:12].sum()),
        "kept": sum(i < 12 for i in kept),
    }  # fmt: skip
    with pytest.raises(DataError, match="curation left"):
        found.kept(12)


def test_controls_of_gan_features_have_its_trunk(inputs: dict[str, Path], tmp_path: Path) -> None:
    material = material_of(inputs, tmp_path / "parts")
    made = {arm: make(TRUNK, material, 0).state_dict() for arm, make in TRUNKS.items()}
    sizes = {arm: {name: value.shape for name, value in state.items()} for arm, state in made.items()}
    assert all(size == sizes["gan"] for size in sizes.values())
    for one, two in itertools.combinations(made.values(), 2):
        assert not any(torch.equal(one[name], two[name]) for name in one if name.endswith("weight"))


def test_encoders_see_the_labelled_and_the_pools_images_alone(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[StoredImages] = []

    def look(kind: str, trunk: torch.nn.Module, size: int, images: StoredImages, **_: object) -> torch.nn.Module:
        shown.append(images)
        return trunk

    monkeypatch.setattr(features, "fit_encoder", look)
    material = material_of(inputs, tmp_path / "parts")
    for kind in ("simclr", "autoencoder"):
        TRUNKS[kind](TRUNK, material, 0)
    rows = np.concatenate([material.rows("train"), material.rows("unlabelled")])
    for images in shown:
        assert torch.equal(images.batch(torch.arange(len(rows))).images, material.dataset.tensor(rows))
        assert (images.label == -1).all()


def test_the_better_of_frozen_and_tuned_on_val_is_taken(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = material_of(inputs, tmp_path / "parts")
    rows = material.rows("val")
    truth = material.dataset.labels(rows, CLASSES).numpy()
    predict, facts = features.fit_on_features("random-features", TRUNK, material, 0)
    expected = roc_auc_score(truth, predict(material.dataset, rows)[:, 1])
    assert facts[f"val_auroc_{facts['chosen']}"] == pytest.approx(expected, abs=1e-4)
    assert expected >= max(facts["val_auroc_frozen"], facts["val_auroc_tuned"]) - 1e-4
    assert facts["C"] in features.STRENGTHS and "encoder_images" not in facts
    for right in (0.0, 1.0):  # a tuned network that is always wrong, and one that is always right
        said = np.abs(truth - (1 - right))
        scores = np.stack([1 - said, said], axis=1).astype(float)
        monkeypatch.setattr(features, "apply_classifier", lambda net, data, at, hardware, scores=scores: scores)
        monkeypatch.setattr(features, "STRENGTHS", (1e-9,))
        _, facts = features.fit_on_features("simclr-features", TRUNK, material, 0)
        assert facts["val_auroc_tuned"] == right
        assert facts["chosen"] == ("tuned" if facts["val_auroc_frozen"] < right else "frozen")
        assert facts["encoder_images"] == 8


def test_the_stage_records_what_curation_and_features_chose(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    arms = ("real+classical+curated@1", "gan-features", REFERENCE_ARM)
    material_of(inputs, out / "parts")
    record = train.run(stage(arms, settings(seeds=2)), inputs, out)
    fits = record.figures["fits"]
    assert list(fits) == [f"{arm} seed {seed}" for arm in arms[:2] for seed in (0, 1)]
    assert fits["real+classical+curated@1 seed 0"]["curation"]["disease"]["made"] == 12
    assert fits["gan-features seed 1"]["chosen"] in ("frozen", "tuned")
    table = pd.read_csv(out / "predictions.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == [
        "arm", "fold", "seed", "gan_seed", "split", "image_id", "patient_id", "label", "score_normal", "score_disease",
    ]  # fmt: skip
    assert set(table["gan_seed"]) == {"0"} and sorted(path.name for path in out.iterdir()) == [
        "attention.csv", "attention.npy", "predictions.csv",
    ]  # fmt: skip
    assert set(table["split"][table["arm"] == REFERENCE_ARM]) == {"synthetic"}
