"""Fixed representations: scikit-learn's own predictions on known vectors, what each has seen, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from arm_stage import (
    CLASSES,
    CPU,
    POOL,
    TRUNK,
    MakeInputs,
    fitted_arms,
    material_of,
    settings,
    stage,
    with_generator,
    with_pool,
)
from noise_data import write_noise
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from pipeline.adversarial.families import FAMILIES
from pipeline.config.arms import ARMS, Representation, representation_arm
from pipeline.config.augment import AugmentConfig
from pipeline.config.families import validate_gan
from pipeline.config.loading import dump_experiment, load_experiment, validate_experiment
from pipeline.core.errors import ConfigError, LeakageError
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.downstream import representations, train
from pipeline.downstream.linear_models import fit_on_representation
from pipeline.downstream.representations import REPRESENTATIONS, images_to_learn_from, require_representations
from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.sizes import ImageShape

DEMO = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
KINDS = tuple(REPRESENTATIONS)
ALL = tuple(name for name, facts in ARMS.items() if facts.representation)
LEARNT = tuple(name for name in ALL if name.startswith(("vae", "f-anogan")))


@pytest.fixture
def inputs(noise_inputs: MakeInputs, tmp_path: Path) -> dict[str, Path]:
    return with_generator(with_pool(noise_inputs(num=48)), tmp_path)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What every such arm says on the same data."""
    root = tmp_path_factory.mktemp("fitted")
    inputs = with_generator(with_pool(write_noise(root / "inputs", num=48)), root)
    return fitted_arms(ALL, inputs, root / "parts")


def few_voxels(images: torch.Tensor) -> torch.Tensor:
    """A representation that a test can work out: six voxels against the image's mean, and a constant."""
    flat = images.flatten(1)
    return torch.cat([flat[:, :6] - flat.mean(dim=1, keepdim=True), torch.ones(len(images), 1)], dim=1)


def few_voxels_of(dataset: DataSet, rows: np.ndarray) -> np.ndarray:
    """The same from the stored 8-bit values."""
    flat = dataset.images[rows].reshape(len(rows), -1) / 127.5 - 1
    return np.concatenate([flat[:, :6] - flat.mean(axis=1, keepdims=True), np.ones((len(rows), 1))], axis=1)


@pytest.mark.parametrize("model", ["logistic", "svm"])
def test_known_vectors_give_scikit_learns_own_predictions(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """7 normal and 3 diseased images seen once as they are, classes weighing equally; C is what is best on val."""
    monkeypatch.setitem(REPRESENTATIONS, "vae", lambda trunk, material, seed: few_voxels)
    still = AugmentConfig(brightness=0, contrast=0, shift=0, rotate_degrees=0, scale=0, noise=0, cutout=0)
    config = settings(steps=1).model_copy(update={"augment": still})
    material = material_of(inputs, tmp_path / "parts", config)
    predict, facts = fit_on_representation(f"vae-features+{model}", TRUNK, material, seed=4)

    data, rows, val, test = material.dataset, *(material.rows(part) for part in ("train", "val", "test"))
    label, val_label = (data.labels(part, CLASSES).numpy() for part in (rows, val))
    weight = np.where(label == 0, 10 / (2 * 7), 10 / (2 * 3))
    scaler = StandardScaler().fit(few_voxels_of(data, rows), sample_weight=weight)
    seen, seen_val, seen_test = (scaler.transform(few_voxels_of(data, part)) for part in (rows, val, test))
    best = {}
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0) if model == "logistic" else (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        one = LogisticRegression(C=strength) if model == "logistic" else LinearSVC(C=strength, dual=False)
        one.fit(seen, label, sample_weight=weight)
        best.setdefault(roc_auc_score(val_label, one.decision_function(seen_val)), (strength, one))
    assert len(best) > 2  # else any C would do
    strength, one = best[max(best)]
    assert facts["C"] == strength and facts["val_auroc"] == pytest.approx(max(best), abs=1e-4)
    assert (facts["numbers"], facts["copies"], facts["labelled"], facts["unlabelled"]) == (7, 1, 10, POOL)
    if model == "svm":
        # patients are in the order of their names; three diseased patients make three folds
        order = np.argsort([f"patient {name}" for name in data.manifest["patient_id"].iloc[rows]])
        fold = np.empty(10, dtype=int)
        for number in (0, 1):
            own = [place for place in order if label[place] == number]
            fold[own] = np.arange(len(own)) % 3
        folds = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(3)]
        one = CalibratedClassifierCV(LinearSVC(C=strength, dual=False), cv=folds, ensemble=False)
        one.fit(seen, label, sample_weight=weight)
    np.testing.assert_allclose(predict(data, test), one.predict_proba(seen_test), atol=1e-4)


def test_a_wide_representation_is_seen_in_fewer_copies(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 images in 3 steps of 8 are 2 copies; where fewer numbers than 10 x 7 x 2 are allowed, they are seen once."""
    monkeypatch.setitem(REPRESENTATIONS, "vae", lambda trunk, material, seed: few_voxels)
    found = []
    for values in (140, 139):
        monkeypatch.setattr("pipeline.downstream.linear_models._VALUES", values)
        material = material_of(inputs, tmp_path / "parts", settings(steps=3))
        found.append(fit_on_representation("vae-features+logistic", TRUNK, material, seed=4)[1]["copies"])
    assert found == [2, 1]


def test_every_representation_tells_bright_images_from_dark_ones(inputs: dict[str, Path], tmp_path: Path) -> None:
    longer, config = TRUNK.model_copy(update={"steps": 60}), settings(steps=6)
    material = material_of(inputs, tmp_path / "parts", config)
    rows = material.rows("test")
    label = material.dataset.labels(rows, CLASSES).numpy()
    for arm in ALL:
        predict, _ = fit_on_representation(arm, longer, material, seed=4)
        scores = predict(material.dataset, rows)
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
        assert roc_auc_score(label, scores[:, 1]) > 0.9, arm


def test_unlabelled_images_are_learnt_from_without_their_labels(
    inputs: dict[str, Path], first: pd.DataFrame, tmp_path: Path
) -> None:
    """Other unlabelled images change what was learnt from them and nothing else; other labels of theirs nothing."""
    rows = material_of(inputs, tmp_path / "one").rows("unlabelled")
    manifest = pd.read_csv(inputs["prepare"] / "manifest.csv")
    swapped = manifest.loc[rows, "label"].map({"normal": "disease", "disease": "normal"})
    manifest.loc[rows, "label"] = swapped
    manifest.to_csv(inputs["prepare"] / "manifest.csv", index=False)
    pd.testing.assert_frame_equal(first, fitted_arms(ALL, inputs, tmp_path / "two"))
    images = np.load(inputs["prepare"] / "images.npy")
    images[rows] = 255 - images[rows]
    np.save(inputs["prepare"] / "images.npy", images)
    second = fitted_arms(ALL, inputs, tmp_path / "three")
    changed = (first["score_disease"] != second["score_disease"]).groupby(first["arm"]).mean()
    assert (changed[list(LEARNT)] > 0.5).all() and (changed.drop(list(LEARNT)) == 0).all()


def test_without_unlabelled_images_the_training_images_are_enough(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = with_generator(noise_inputs(num=48), tmp_path)
    _, facts = fit_on_representation(LEARNT[0], TRUNK, material_of(inputs, tmp_path / "parts"), seed=4)
    assert (facts["labelled"], facts["unlabelled"], facts["encoder_images"]) == (24, 0, 8)


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_of_patients_who_are_kept_from_training_are_refused(
    inputs: dict[str, Path], tmp_path: Path, split: str
) -> None:
    material = material_of(inputs, tmp_path / "parts")
    learnable = np.concatenate([material.rows("train"), material.rows("unlabelled")])
    assert len(images_to_learn_from(material, learnable).label) == len(learnable)
    with pytest.raises(LeakageError, match=r"1 patient\(s\) of val, test"):
        images_to_learn_from(material, np.append(learnable, material.rows(split)[0]))
    # another image of such a patient, among the unlabelled ones
    manifest = pd.read_csv(inputs["prepare"] / "manifest.csv")
    manifest.loc[material.rows("unlabelled")[0], "patient_id"] = manifest["patient_id"][material.rows(split)[0]]
    for place in (inputs["prepare"], inputs["split"]):
        own = pd.read_csv(place / "manifest.csv").assign(patient_id=manifest["patient_id"])
        own.to_csv(place / "manifest.csv", index=False)
    with pytest.raises(LeakageError, match=r"1 patient\(s\)"):
        images_to_learn_from(_unchecked(inputs, tmp_path), learnable)
    (tmp_path / "out").mkdir()
    with pytest.raises(LeakageError, match=r"1 patient\(s\)"):
        train.run(stage((LEARNT[0],)), inputs, tmp_path / "out")


def _unchecked(inputs: dict[str, Path], tmp_path: Path) -> train.Material:
    """A fold whose images were opened without the look for leaks that comes first."""
    material = material_of(inputs, tmp_path / "unchecked")
    material.__dict__["dataset"] = open_dataset(inputs["prepare"])
    return material


@pytest.mark.parametrize("kind", ["f-anogan", "discriminator"])
def test_a_gan_of_another_fold_is_refused(inputs: dict[str, Path], tmp_path: Path, kind: str) -> None:
    manifest = pd.read_csv(inputs["synthesise"] / "manifest.csv", dtype=str)
    manifest.assign(fold="1").to_csv(inputs["synthesise"] / "manifest.csv", index=False)
    material = material_of(inputs, tmp_path / "parts")
    with pytest.raises(LeakageError, match="generator of fold 1"):
        fit_on_representation(f"{kind}-features+logistic", TRUNK, material, seed=4)


@pytest.mark.parametrize("kind", ["vae", "f-anogan"])
def test_both_models_share_what_was_learnt_and_a_resumed_stage_has_it_still(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Representation
) -> None:
    made = []
    real = representations.fit_unlabelled
    monkeypatch.setattr(representations, "fit_unlabelled", lambda *a, **k: (made.append(k["what"]), real(*a, **k)))
    gan_seed = 0 if kind == "f-anogan" else None
    arms = tuple(representation_arm(kind, model) for model in ("logistic", "svm"))
    config = stage(arms, settings(seeds=2)).model_copy(update={"gan_seed": gan_seed})
    (tmp_path / "out").mkdir()
    record = train.run(config, inputs, tmp_path / "out")
    assert made == [f"the encoder of {kind}"] * 2
    assert record.figures["fits"][f"{arms[1]} seed 1"]["unlabelled"] == POOL
    assert not (tmp_path / "out" / "parts").exists()
    material = material_of(inputs, tmp_path / "parts")
    one = REPRESENTATIONS[kind](TRUNK, material, 4)
    again = REPRESENTATIONS[kind](TRUNK, material_of(inputs, tmp_path / "parts"), 4)
    images = material.dataset.tensor(material.rows("val"))
    assert len(made) == 3 and torch.equal(one(images), again(images))
    assert not torch.equal(one(images), REPRESENTATIONS[kind](TRUNK, material, 5)(images))


class TwoLayers(nn.Module):
    """A discriminator whose first layer is the image twice, once with its sign turned, and whose second is linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.linear = nn.Linear(2, 2, bias=False)
        self.score = nn.Linear(2, 1)
        self.conv.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        self.linear.weight.data = torch.eye(2)

    def forward(self, images: torch.Tensor, condition: Condition) -> Judgement:
        sums = self.linear(self.conv(images).flatten(2).sum(dim=2))
        return Judgement(self.score(sums).squeeze(1))


def test_a_discriminators_layers_are_pooled_to_sixteen_cells(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = {"classes": list(CLASSES), "gan": {"attributes": []}}
    monkeypatch.setattr(representations, "load_net", lambda directory, name: (TwoLayers(), description))
    encode = REPRESENTATIONS["discriminator"](TRUNK, material_of(inputs, tmp_path / "parts"), 0)
    images = torch.randn(3, 1, 12, 12)
    cells = images.numpy().reshape(3, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4).reshape(3, 16, 9)
    total = images.flatten(1).sum(dim=1).numpy()[:, None]
    expected = np.concatenate([cells.max(axis=2), -cells.min(axis=2), total, -total], axis=1)
    np.testing.assert_allclose(encode(images).numpy(), expected, rtol=1e-5)


def test_an_images_vector_depends_on_that_image_alone(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ProGAN's discriminator looks at the spread of a batch; as a representation it may not."""
    config = validate_gan({"family": "progan", "discriminator_width": 4, "generator_width": 4, "latent_dim": 4})
    nets, _ = FAMILIES["progan"].build(config, ImageShape((12, 12), 1, 2))
    description = {"classes": list(CLASSES), "gan": {"attributes": []}}
    monkeypatch.setattr(representations, "load_net", lambda directory, name: (nets[name], description))
    encode = REPRESENTATIONS["discriminator"](TRUNK, material_of(inputs, tmp_path / "parts"), 0)
    images = torch.randn(6, 1, 12, 12)
    torch.testing.assert_close(encode(images)[:2], encode(images[:2]))


def test_one_line_of_configuration_stands_for_the_arms() -> None:
    asked = "representation={of: [vae, effnet], models: [svm]}"
    found = load_experiment(DEMO, [asked, "compute.device=cpu"])
    wanted = ("vae-features+svm", "effnet-features+svm")
    assert found.arms[-2:] == wanted and found.arms[:-2] == load_experiment(DEMO).arms
    again = validate_experiment(found.model_dump(mode="json"), "again")
    assert again == found and "vae-features+svm" in dump_experiment(found)
    assert set(load_experiment(DEMO, ["representation={of: [vae, f-anogan, discriminator, effnet]}"]).arms) >= set(ALL)
    assert tuple(representation_arm(kind, model) for kind in KINDS for model in ("logistic", "svm")) == ALL
    alone = load_experiment(DEMO, ["representation={of: [vae]}", "arms=[real+classical]"])
    assert alone.arms == ("real+classical", "vae-features+logistic", "vae-features+svm")
    for wrong in ("{of: [pca]}", "{of: [vae, vae]}", "{of: [vae], models: []}"):
        with pytest.raises(ConfigError, match=r"representation\."):
            load_experiment(DEMO, [f"representation={wrong}"])


@pytest.mark.parametrize(
    ("family", "kind", "said"),
    [
        ("vae", "discriminator", "has none"),
        ("vae", "f-anogan", "has none"),
        ("pix2pix", "f-anogan", "from mask"),
        ("sngan", "f-anogan", ""),
        ("pix2pix", "discriminator", ""),
        ("vae", "vae", ""),
    ],
)
def test_what_the_gan_cannot_give_is_refused_before_anything_is_trained(family: str, kind: str, said: str) -> None:
    experiment = load_experiment(DEMO, [f"representation={{of: [{kind}]}}", f"gan.family={family}"])
    if said:
        with pytest.raises(ConfigError, match=said):
            require_representations(experiment)
    else:
        require_representations(experiment)


def test_the_hardware_of_the_stage_is_that_of_the_representation(inputs: dict[str, Path], tmp_path: Path) -> None:
    material = material_of(inputs, tmp_path / "parts")
    assert material.hardware == CPU
    for kind in KINDS:
        vectors = REPRESENTATIONS[kind](TRUNK, material, 4)(material.dataset.tensor(material.rows("val")))
        assert vectors.shape[0] == 12 and vectors.ndim == 2 and not vectors.requires_grad
        assert torch.isfinite(vectors).all()
