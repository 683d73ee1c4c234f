"""scikit-learn's classifiers on features: their training sets by hand, the arms that they take, and the whole stage."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from pipeline.config.arms import ARMS, REFERENCE_ARM, known_arm
from pipeline.config.experiment import FEATURE_MODELS, ClassifierConfig
from pipeline.config.loading import load_experiment
from pipeline.core.compute import Hardware
from pipeline.core.errors import DataError
from pipeline.core.records import Record
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.scaling import Scaling
from pipeline.downstream import feature_models, train
from pipeline.downstream.feature_models import Examples, examples_of, fit_feature_model, patient_folds
from pipeline.downstream.material import Material
from pipeline.supervised import classifier_cost
from pipeline.supervised.fit import Phase, Share

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
CPU = Hardware("cpu", "float32")
DEMO = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"


class MeanGrey:
    """In place of the network: two features that a test can work out, the mean grey value and its square."""

    def __init__(self, device: str) -> None:
        self.device = device

    def extract(self, images: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
        mean = images.flatten(1).mean(dim=1)
        return torch.stack([mean, mean**2], dim=1)


@pytest.fixture
def grey_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_models, "EffNetLite0", MeanGrey)


def grey(labels: list[str], levels: list[int], patients: list[str] | None = None) -> DataSet:
    ids = [f"image-{number}" for number in range(len(labels))]
    manifest = pd.DataFrame({"image_id": ids, "label": labels, "patient_id": patients or ""})
    images = np.array(levels, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, 8, 8), dtype=np.uint8)
    return DataSet(Path("grey"), manifest, images, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))


def everything(dataset: DataSet, **changes: Any) -> Share:
    return Share(dataset, np.arange(len(dataset.images)), **changes)


def examples(phase: Phase, **changes: Any) -> Examples:
    return examples_of(ClassifierConfig(network="logistic", **changes), phase, CLASSES, CPU, seed=0)


def weight_by(found: Examples) -> dict[tuple[float, int], float]:
    """(first feature, class) -> summed weight."""
    table = pd.DataFrame({"level": found.features[:, 0].round(4), "label": found.label, "weight": found.weight})
    return {key: float(value) for key, value in table.groupby(["level", "label"])["weight"].sum().items()}  # type: ignore[misc]


def level(stored: int) -> float:
    return round(stored / 127.5 - 1, 4)


@pytest.mark.usefixtures("grey_features")
def test_shares_and_classes_weigh_as_in_a_batch() -> None:
    """Three normal and one diseased real image, balanced; synthetic ones of double weight as frequent as they are."""
    real = everything(grey(["normal"] * 3 + ["disease"], [10, 20, 30, 40]))
    made = everything(grey(["normal", "disease", "disease"], [50, 60, 70]), weight=2.0, balanced=False)
    found = examples(Phase((real, made), 1, classical=False))
    # 7 images in all: real ones weigh 7/3 together, 7/6 a class; synthetic ones 14/3, 14/9 each
    expected = {(level(v), 0): 7 / 18 for v in (10, 20, 30)} | {(level(40), 1): 7 / 6}
    expected |= {(level(50), 0): 14 / 9, (level(60), 1): 14 / 9, (level(70), 1): 14 / 9}
    assert weight_by(found) == pytest.approx(expected, abs=1e-3)


@pytest.mark.usefixtures("grey_features")
def test_a_soft_label_is_a_weighted_image_of_each_class_and_class_weights_balance() -> None:
    pool = everything(grey(["?", "?"], [10, 20]), soft=np.array([[0.75, 0.25], [0.0, 1.0]]))
    found = weight_by(examples(Phase((pool,), 1, classical=False)))
    assert found == pytest.approx({(level(10), 0): 0.75, (level(10), 1): 0.25, (level(20), 1): 1.0})
    natural = everything(grey(["normal"] * 3 + ["disease"], [10, 20, 30, 40]), balanced=False)
    plain = weight_by(examples(Phase((natural,), 1, classical=False)))
    assert set(plain.values()) == {1.0}
    weighted = weight_by(examples(Phase((natural,), 1, classical=False, loss="class_weights")))
    assert sorted(weighted.values()) == pytest.approx([2 / 3] * 3 + [2.0])


@pytest.mark.usefixtures("grey_features")
@pytest.mark.parametrize(("steps", "copies"), [(1, 1), (4, 4), (1000, 10)])
def test_as_many_transformed_copies_as_a_network_would_see(steps: int, copies: int) -> None:
    share = everything(grey(["normal", "disease"] * 4, list(range(40, 200, 20))))
    found = examples(Phase((share,), steps), steps=steps, batch_size=8)
    assert len(found.features) == 8 * copies
    assert found.weight.sum() == pytest.approx(8)
    assert np.bincount(found.group).tolist() == [copies] * 8
    assert len(np.unique(found.features[:, 0])) == 8 * copies  # other transforms each time
    assert len(examples(Phase((share,), steps, classical=False), steps=steps).features) == 8
    again = examples(Phase((share,), steps), steps=steps, batch_size=8)
    np.testing.assert_array_equal(found.features, again.features)


@pytest.mark.usefixtures("grey_features")
def test_a_class_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="of the class disease"):
        examples(Phase((everything(grey(["normal"] * 3, [1, 2, 3])),), 1))


def test_folds_keep_patients_whole_and_have_every_class() -> None:
    group = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 6])
    label = np.array([0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1])
    found = patient_folds(Examples(np.zeros((11, 1)), label, np.ones(11), group))
    assert len(found) == 3  # patients 2, 3 and 6 are mostly of the second class
    for fitted, left_out in found:
        assert not set(group[fitted]) & set(group[left_out])
        assert set(label[fitted]) == set(label[left_out]) == {0, 1}
    assert sorted(np.concatenate([left_out for _, left_out in found])) == list(range(11))
    with pytest.raises(DataError, match="two training patients a class"):
        patient_folds(Examples(np.zeros((3, 1)), np.array([0, 0, 1]), np.ones(3), np.arange(3)))


@pytest.mark.usefixtures("grey_features")
def test_an_svms_probabilities_are_no_surer_than_unseen_patients_allow() -> None:
    """Labels that have nothing to do with the images, ten copies of each: fitted margins would claim to know them."""
    random = np.random.default_rng(0)
    dataset = grey(random.permutation(["normal", "disease"] * 20).tolist(), random.integers(40, 200, 40).tolist())
    config = ClassifierConfig(network="svm", steps=100, batch_size=32)
    predict = fit_feature_model(config, Phase((everything(dataset),), 100), CLASSES, CPU, seed=0)
    scores = predict(dataset, np.arange(40))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert np.abs(scores - 0.5).max() < 0.3


@pytest.mark.parametrize("shape", [(24, 20), (12, 12, 12)])
def test_what_can_be_seen_is_learnt_in_2d_and_3d(shape: tuple[int, ...]) -> None:
    """Half of the images have a bright square or cube in the middle of the noise."""
    random = np.random.default_rng(0)
    label = np.arange(32) % 2
    images = random.integers(0, 80, (32, 1, *shape), dtype=np.uint8)
    images[(label == 1, 0, *(slice(side // 3, 2 * side // 3) for side in shape))] = 250
    data = replace(grey(np.array(CLASSES)[label].tolist(), [0] * 32), images=images)
    for network in FEATURE_MODELS:
        config = ClassifierConfig(network=network, steps=1, batch_size=16)  # type: ignore[arg-type]
        predict = fit_feature_model(config, Phase((Share(data, np.arange(16)),), 1), CLASSES, CPU, seed=0)
        scores = predict(data, np.arange(16, 32))
        assert scores.shape == (16, 2)
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
        assert roc_auc_score(label[16:], scores[:, 1]) > 0.95, network


FITTING = tuple(
    f"{name}@1" if facts.ratio else name
    for name, facts in ARMS.items()
    if facts.on_features and not (facts.target or facts.translator)  # which the demo has not
)


def test_arms_that_need_a_network_are_refused_in_the_configuration() -> None:
    for network in FEATURE_MODELS:
        overrides = [f"classifier.network={network}"]
        sited = [*overrides, "data.site=hospital"]
        assert load_experiment(DEMO, [*sited, f"arms=[{', '.join(FITTING)}]"]).classifier.on_features
        for name, facts in ARMS.items():
            if not (facts.on_features or facts.representation):
                with pytest.raises((ValidationError, ValueError), match="step by step"):
                    load_experiment(DEMO, [*sited, f"arms=[{REFERENCE_ARM}, {name}]"])
    assert {name.split("@")[0] for name in FITTING} == {
        "real", REFERENCE_ARM, *(f"{REFERENCE_ARM}+{what}" for what in
        ("oversampling", "classweights", "cellbalanced", "bigaug", "standardised", "equalised", "sitecentred",
         "pseudolabels", "synthetic", "curated")),
        "synthetic+classical",
    }  # fmt: skip


@pytest.mark.usefixtures("grey_features")
def test_every_fitting_arm_runs_and_the_ensemble_is_of_the_same_kind(
    noise_inputs: MakeInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = with_pool_and_images(noise_inputs(num=48), tmp_path)
    monkeypatch.setattr(train, "fit", lambda *a, **k: pytest.fail("a network was trained"))
    monkeypatch.setattr("pipeline.downstream.material.fit_classifier", lambda *a, **k: pytest.fail("trained"))
    config = ClassifierConfig(network="logistic", steps=4, seeds=2, batch_size=8)
    # the filters of `curated` need a discriminator, not a classifier, and a look changes the mean grey
    arms = tuple(arm for arm in FITTING if "curated" not in arm and known_arm(arm).look is None)
    stage = train.DownstreamConfig(
        classifier=config, arms=arms, classes=CLASSES, fold=0, gan_seed=0, seed=1, device="cpu", precision="float32",
        needs_pool=True,
    )  # fmt: skip
    material = Material(config, CLASSES, 0, inputs, tmp_path, CPU, 1, site="hospital")
    said: dict[str, np.ndarray] = {}
    for arm, seed in itertools.product(arms, (5, 6)):
        predict, _ = train.fit_arm(arm, stage, material, seed)
        rows = material.rows("val")
        said[f"{arm} {seed}"] = predict(material.dataset, rows)[:, 1]
        truth = material.dataset.labels(rows, CLASSES).numpy()
        assert roc_auc_score(truth, said[f"{arm} {seed}"]) == 1, arm  # mean grey tells the classes apart
    np.testing.assert_array_equal(said["real 5"], said["real 6"])  # nothing is drawn
    for arm in arms[1:]:
        assert np.abs(said[f"{arm} 5"] - said[f"{arm} 6"]).max() > 1e-6, arm
    assert (tmp_path / "ensemble-pool.npz").is_file()


def with_pool_and_images(inputs: dict[str, Path], root: Path) -> dict[str, Path]:
    """Six of the training images become a pool; synthetic images are those of noise with a bright class."""
    table = pd.read_csv(inputs["split"] / "splits.csv", dtype=str)
    table.loc[table.index[table["split"] == "train"][:6], "split"] = "unlabelled"
    table.to_csv(inputs["split"] / "splits.csv", index=False)
    real = open_dataset(inputs["prepare"])
    (root / "synthesise").mkdir()
    np.save(root / "synthesise" / "images.npy", real.images[:12])
    manifest = real.manifest[:12].assign(patient_id="")
    manifest.assign(fold="0").to_csv(root / "synthesise" / "manifest.csv", index=False)
    Record(kind="synthesise", extra={"scaling": real.scaling.as_json()}).save(root / "synthesise")
    return inputs | {"synthesise": root / "synthesise"}


def test_their_cost_is_that_of_the_features() -> None:
    """At most 5 steps of 8 images a fit, each of three planes in 3D; the network's size does not matter."""
    overrides = [f"arms=[{REFERENCE_ARM}]", "classifier.seeds=2", "classifier.steps=5", "classifier.batch_size=8",
                 "compute.device=cpu", "classifier.network=forest"]  # fmt: skip
    flat = classifier_cost.estimate(load_experiment(DEMO, overrides))
    thick = classifier_cost.estimate(load_experiment(DEMO, [*overrides, "data.spatial_dims=3"]))
    # Lite0 is published with 407 million multiply-adds at 224 x 224: about 0.27 GFLOP an image at 128 x 128
    assert flat.flops == pytest.approx(2 * 5 * 8 * 0.27e9, rel=0.15)
    assert thick.flops == pytest.approx(3 * flat.flops, rel=0.01)
    assert flat.minutes > 0
