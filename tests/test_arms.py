"""Every arm of the comparison: equal steps, who sees what, and what each does with it, in 2D and 3D."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline.adversarial import fit as gan_stage
from pipeline.adversarial.families.s3gan import S3ganConfig
from pipeline.config.arms import ARMS, REFERENCE_ARM, arm_facts
from pipeline.config.experiment import ClassifierConfig
from pipeline.config.gan import WatchConfig
from pipeline.core.compute import Hardware
from pipeline.core.errors import DataError
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.streams import StoredImages
from pipeline.downstream import curation, features, shortcut, train
from pipeline.downstream.features import TRUNKS, TrunkConfig
from pipeline.downstream.material import Material
from pipeline.downstream.regimens import regimen_of
from pipeline.supervised.fit import apply_classifier, fit_classifier

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
CPU = Hardware("cpu", "float32")
TRUNK = TrunkConfig(width=4, steps=2, batch_size=4)
STEPPED = tuple(name for name, facts in ARMS.items() if facts.trunk is None)
EVERY_ARM = tuple(f"{name}@1" if facts.ratio else name for name, facts in ARMS.items())
SLOW_ARM = "pretrained+classical"
TOLD, POOL = 10, 6
"""Of 24 training images: 7 normal and 3 of the disease are told, 6 are the pool, the others are not used."""


def with_pool(inputs: dict[str, Path]) -> dict[str, Path]:
    """Fewer and unequal labelled training images, and a pool; the manifest still holds the pool's labels."""
    table = pd.read_csv(inputs["split"] / "splits.csv", dtype=str)
    ids = table["image_id"][table["split"] == "train"].tolist()
    normal, disease = ids[::2], ids[1::2]
    told, pool = [*normal[:7], *disease[:3]], [*normal[7:10], *disease[3:6]]
    split = table["split"].where(~table["image_id"].isin(ids), "unused")
    split = split.where(~table["image_id"].isin(told), "train")
    table["split"] = split.where(~table["image_id"].isin(pool), "unlabelled")
    table.to_csv(inputs["split"] / "splits.csv", index=False)
    return inputs


def with_generator(inputs: dict[str, Path], root: Path, samples: int = 12) -> dict[str, Path]:
    """A barely trained s3gan, and in its images' place fresh noise with a bright class, as a good GAN would make."""
    gan = S3ganConfig(
        num_images=8, batch_size=4, generator_width=4, discriminator_width=4, latent_dim=4, snapshots=1, checkpoints=1,
        watch=WatchConfig(checks=0),
    )  # fmt: skip
    config = gan_stage.FitConfig(
        gan=gan, classes=CLASSES, positive=("disease",), fold=0, gan_seed=0, seed=3, device="cpu",
        precision="float32", deterministic=False,
    )  # fmt: skip
    found = inputs | {"fit-gan": root / "fit-gan", "synthesise": root / "synthesise"}
    for name in ("fit-gan", "synthesise"):
        found[name].mkdir()
    gan_stage.run(config, inputs, found["fit-gan"])
    real = open_dataset(inputs["prepare"])
    label = np.repeat([0, 1], samples)
    noise = np.random.default_rng(7).integers(0, 120, (2 * samples, *real.images.shape[1:]))
    bright = 100 * label.reshape(-1, *[1] * (noise.ndim - 1))
    np.save(found["synthesise"] / "images.npy", (noise + bright).astype(np.uint8))
    ids = [f"synthetic-{number}" for number in range(2 * samples)]
    table = pd.DataFrame({"image_id": ids, "label": np.array(CLASSES)[label], "patient_id": "", "fold": "0"})
    table.to_csv(found["synthesise"] / "manifest.csv", index=False)
    Record(kind="synthesise", extra={"scaling": real.scaling.as_json()}).save(found["synthesise"])
    return found


@pytest.fixture
def inputs(noise_inputs: MakeInputs, tmp_path: Path) -> dict[str, Path]:
    return with_generator(with_pool(noise_inputs(num=48)), tmp_path)


def settings(steps: int = 3, seeds: int = 1) -> ClassifierConfig:
    return ClassifierConfig(steps=steps, seeds=seeds, batch_size=8)


def material_of(
    inputs: dict[str, Path], parts: Path, config: ClassifierConfig | None = None, *, planted: bool = True
) -> Material:
    """With `planted`, an ensemble that agrees with the classes asked for: one of so few steps agrees with nobody."""
    parts.mkdir(exist_ok=True)
    if planted and not (parts / "ensemble-synthetic.npy").exists():
        np.save(parts / "ensemble-synthetic.npy", np.repeat([[0.9, 0.1], [0.2, 0.8]], 12, axis=0))
    return Material(config or settings(), CLASSES, 0, inputs, parts, CPU, seed=1)


def stage(arms: tuple[str, ...], config: ClassifierConfig | None = None) -> train.DownstreamConfig:
    facts = [arm_facts(arm) for arm in arms]
    return train.DownstreamConfig(
        classifier=config or settings(), arms=arms, classes=CLASSES, fold=0, gan_seed=0, seed=1, device="cpu",
        precision="float32", trunk=TRUNK, needs_pool=any(fact is not None and fact.pool for fact in facts),
    )  # fmt: skip


def fitted_arms(arms: tuple[str, ...], inputs: dict[str, Path], out: Path) -> pd.DataFrame:
    """val and test predictions of one fit of each arm, whatever stage it belongs to."""
    material = material_of(inputs, out)
    tables = []
    for arm in arms:
        predict, _ = train.fit_arm(arm, stage(arms), material, seed=5)
        for split in ("val", "test"):
            rows = material.rows(split)
            scores = predict(material.dataset, rows)
            tables.append(train.predictions({"arm": arm, "split": split}, material.dataset, rows, scores, CLASSES))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("shape", [(12, 12), (8, 8, 8)])
def test_every_arm_fits_in_2d_and_3d(noise_inputs: MakeInputs, tmp_path: Path, shape: tuple[int, ...]) -> None:
    inputs = with_generator(with_pool(noise_inputs(shape, num=48)), tmp_path)
    table = fitted_arms(EVERY_ARM, inputs, tmp_path / "parts")
    assert table.groupby(["arm", "split"]).size().to_dict() == dict.fromkeys(
        itertools.product(EVERY_ARM, ("val", "test")), 12
    )
    scores = table[["score_normal", "score_disease"]].astype(float)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)


def test_steps_are_equal_and_only_a_pretraining_takes_them_twice(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = settings(steps=25)
    material = material_of(inputs, tmp_path / "parts", config)
    for arm in STEPPED:
        name = f"{arm}@1" if ARMS[arm].ratio else arm
        regimen = regimen_of(name, config, material)
        twice = arm in ("synthetic-pretrained", "augmented-pretrained")
        assert [sum(phase.steps for phase in regimen.phases)] == [50 if twice else 25], arm
        assert all(phase.classical for phase in regimen.phases) == (arm != "real"), arm
        assert regimen.lr == (config.pretrained_lr if arm == SLOW_ARM else None)
    assert [phase.steps for phase in regimen_of("minority-synthetic", config, material).phases] == [20, 5]


def test_no_arm_sees_a_held_out_image_and_no_control_a_synthetic_one(inputs: dict[str, Path], tmp_path: Path) -> None:
    material = material_of(inputs, tmp_path / "parts")
    train_rows, pool = set(material.rows("train")), set(material.rows("unlabelled"))
    assert (len(train_rows), len(pool)) == (TOLD, POOL)
    assert set(material.dataset.manifest["label"].iloc[sorted(pool)]) == {""}
    for arm in STEPPED:
        facts = ARMS[arm]
        regimen = regimen_of(f"{arm}@1" if facts.ratio else arm, settings(), material)
        for share in (share for phase in regimen.phases for share in phase.shares):
            if share.dataset is material.dataset:
                seen = set(share.rows)
                assert seen == train_rows or (facts.pool and not facts.generator and seen == pool), arm
                assert (share.soft is not None) == (seen == pool), arm
            else:
                assert facts.generator and share.dataset is material.generated, arm


def test_held_out_images_change_no_classifier(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    """Other test images, with other labels: what is said of val stays the same to the last digit."""
    inputs = with_generator(with_pool(noise_inputs(num=48)), tmp_path)
    arms = tuple(arm for arm in EVERY_ARM if arm != SLOW_ARM)
    first = fitted_arms(arms, inputs, tmp_path / "one")
    material = material_of(inputs, tmp_path / "one")
    rows = material.rows("test")
    images = np.load(inputs["prepare"] / "images.npy")
    images[rows] = 255 - images[rows]
    np.save(inputs["prepare"] / "images.npy", images)
    manifest = pd.read_csv(inputs["prepare"] / "manifest.csv")
    manifest.loc[rows, "label"] = "normal"
    manifest.to_csv(inputs["prepare"] / "manifest.csv", index=False)
    second = fitted_arms(arms, inputs, tmp_path / "two")
    val = first["split"] == "val"
    pd.testing.assert_frame_equal(first[val], second[val])
    assert (first["score_disease"][~val] != second["score_disease"][~val]).mean() > 0.9


POOL_ARMS = tuple(name for name, facts in ARMS.items() if facts.pool)


@pytest.mark.parametrize("labels", ["swapped", "", "something else"])
def test_labels_of_pool_images_are_never_read(inputs: dict[str, Path], tmp_path: Path, labels: str) -> None:
    first = fitted_arms(POOL_ARMS, inputs, tmp_path / "one")
    rows = material_of(inputs, tmp_path / "one").rows("unlabelled")
    manifest = pd.read_csv(inputs["prepare"] / "manifest.csv")
    before = manifest.loc[rows, "label"]
    assert before.nunique() == 2
    manifest.loc[rows, "label"] = (
        before.map({"normal": "disease", "disease": "normal"}) if labels == "swapped" else labels
    )
    manifest.to_csv(inputs["prepare"] / "manifest.csv", index=False)
    pd.testing.assert_frame_equal(first, fitted_arms(POOL_ARMS, inputs, tmp_path / "two"))


def test_pool_images_do_reach_the_pools_arms(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The pool's own arms change with the pool's images (else the test above says nothing); the others do not."""
    arms = (f"{REFERENCE_ARM}+pseudolabels", "simclr-features", "autoencoder-features", REFERENCE_ARM)
    first = fitted_arms(arms, inputs, tmp_path / "one")
    rows = material_of(inputs, tmp_path / "one").rows("unlabelled")
    images = np.load(inputs["prepare"] / "images.npy")
    images[rows] = 255 - images[rows]
    np.save(inputs["prepare"] / "images.npy", images)
    second = fitted_arms(arms, inputs, tmp_path / "two")
    changed = (first["score_disease"] != second["score_disease"]).groupby(first["arm"]).mean()
    assert changed[REFERENCE_ARM] == 0
    assert (changed.drop(REFERENCE_ARM) > 0.9).all()


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
        np.testing.assert_array_equal(images.stored.numpy(), material.dataset.images[rows])
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
    assert set(table["gan_seed"]) == {"0"} and sorted(path.name for path in out.iterdir()) == ["predictions.csv"]
    assert set(table["split"][table["arm"] == REFERENCE_ARM]) == {"synthetic"}


def test_arms_of_a_pool_need_one(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    config = stage((f"{REFERENCE_ARM}+pseudolabels",)).model_copy(update={"gan_seed": None})
    with pytest.raises(DataError, match=r"data\.surplus: unlabelled"):
        train.run(config, noise_inputs(), tmp_path)
    assert not list((tmp_path / "parts").iterdir())


def test_a_killed_stage_keeps_its_whole_classifiers_and_makes_cut_ones_again(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stage(("real", REFERENCE_ARM), settings(seeds=3)).model_copy(update={"gan_seed": None})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    train.run(config, inputs, whole)
    fitted: list[tuple[str, int]] = []
    original = train.fit_arm

    def counts(arm: str, config: train.DownstreamConfig, material: Material, seed: int) -> Any:
        fitted.append((arm, seed))
        if len(fitted) == 6:
            raise KeyboardInterrupt
        return original(arm, config, material, seed)

    monkeypatch.setattr(train, "fit_arm", counts)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, inputs, killed)
    parts = killed / "parts"
    cut, lost, broken = parts / "real-0.csv", parts / "real-1.csv.json", parts / "real-2.csv.json"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    lost.unlink()
    broken.write_text('{"facts": {')
    done = list(fitted)
    train.run(config, inputs, killed)
    assert fitted[6:] == [done[0], done[1], done[2], done[5]]
    assert (killed / train.PREDICTIONS).read_bytes() == (whole / train.PREDICTIONS).read_bytes()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY half", "other shape"])
def test_an_ensembles_array_that_is_not_whole_is_made_again(
    inputs: dict[str, Path], tmp_path: Path, content: bytes | str
) -> None:
    material = material_of(inputs, tmp_path, planted=False)
    rows = material.rows("val")
    right = material.judged("val", material.dataset, rows)
    path = tmp_path / "ensemble-val.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, right[:-1])
    np.testing.assert_array_equal(
        material_of(inputs, tmp_path, planted=False).judged("val", material.dataset, rows), right
    )
