"""Arms on translations: what lies beside an image, what is asked of both, and who may be translated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_stage import CLASSES, CPU, MakeInputs, material_of, settings, with_generator, with_pool
from scipy.spatial.distance import jensenshannon

from pipeline.config.arms import ARMS
from pipeline.config.loading import load_experiment
from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.data.batches.dataset import read_table, write_table
from pipeline.downstream.material import Material
from pipeline.downstream.regimens import regimen_of
from pipeline.supervised.batches import Batches
from pipeline.supervised.fit import Regimen, fit, partners_across
from pipeline.supervised.losses import jensen_shannon

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "shortcut-translated.yaml"


@pytest.fixture
def material(noise_inputs: MakeInputs, tmp_path: Path) -> Material:
    """10 training images: of the normal 3 in A and 4 in B, of the diseased 1 in A and 2 in B."""
    return material_of(with_generator(with_pool(noise_inputs(num=48)), tmp_path), tmp_path / "parts")


def test_beside_each_image_lies_its_own_translation_without_a_label(material: Material) -> None:
    (phase,) = regimen_of("translated-consistency", settings(), material).phases
    (share,) = phase.shares
    assert phase.agreement > 0 and set(share.rows) == set(material.rows("train")) and share.beside is not None
    made, places = share.beside
    assert made is material.generated
    real, other = material.dataset.manifest.iloc[share.rows], made.manifest.iloc[places]
    assert list(other["source_image"]) == list(real["image_id"]) and list(other["label"]) == list(real["label"])
    assert (other["site"].to_numpy() != real["hospital"].to_numpy()).all()
    batches = Batches(phase.shares, 8, CLASSES, "cpu", seed=0)
    images, translated = material.dataset.tensor(share.rows), made.tensor(places)
    for _ in range(3):
        batch = batches.next()
        assert batch.beside is not None and len(batch.target) == 8
        for image, beside in zip(batch.images, batch.beside, strict=True):
            (number,) = [row for row, one in enumerate(images) if torch.equal(one, image)]
            assert torch.equal(beside, translated[number])


def test_the_control_sees_two_copies_of_each_image_and_takes_as_many_steps(material: Material) -> None:
    (phase,) = regimen_of("cells-consistency", settings(), material).phases
    (share,) = phase.shares
    assert (
        share.beside is not None and share.beside[0] is material.dataset and list(share.beside[1]) == list(share.rows)
    )
    (arm,) = regimen_of("translated-consistency", settings(), material).phases
    assert (phase.steps, phase.agreement, phase.loss) == (arm.steps, arm.agreement, arm.loss)
    assert ARMS["cells-consistency"].trainings == ARMS["translated-consistency"].trainings == 2
    assert not ARMS["cells-consistency"].generator and "cells-consistency" in ARMS["translated-consistency"].controls


def test_mixed_across_sites_are_real_images_and_translations_of_one_class(material: Material) -> None:
    """Half of a batch each; what a site is called is the same of both."""
    (phase,) = regimen_of("translated-crosssitemixup", settings(), material).phases
    real, made = phase.shares
    assert phase.mixup == "across_sites" and not phase.agreement
    assert set(real.rows) == set(material.rows("train")) and made.dataset is material.generated
    numbers = {"A": 0, "B": 1}
    assert real.domains is not None and made.domains is not None
    assert [numbers[one] for one in material.dataset.manifest["hospital"].iloc[real.rows]] == real.domains.tolist()
    assert [numbers[one] for one in made.dataset.manifest["site"].iloc[made.rows]] == made.domains.tolist()
    batch = Batches(phase.shares, 8, CLASSES, "cpu", seed=0).next()
    synthetic = made.dataset.tensor(made.rows)
    assert sum(any(torch.equal(one, other) for other in synthetic) for one in batch.images) == 4
    label, domain = batch.target.argmax(dim=1).numpy(), batch.domain.numpy()
    partner = partners_across(label, domain, np.random.default_rng(0))
    able = [any((label == label[row]) & (domain != domain[row])) for row in range(8)]
    assert all(able) and (label[partner] == label).all() and (domain[partner] != domain).all()


def test_equal_answers_are_asked_for_by_the_divergence_of_a_library() -> None:
    random = np.random.default_rng(0)
    logits, other = random.normal(size=(2, 16, 3)) * 3
    p, q = (np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in (logits, other))
    expected = np.mean(jensenshannon(p, q, axis=1) ** 2)
    assert float(jensen_shannon(torch.tensor(logits), torch.tensor(other))) == pytest.approx(expected)
    assert float(jensen_shannon(torch.tensor(logits), torch.tensor(logits))) == pytest.approx(0, abs=1e-12)
    far = torch.tensor([[60.0, -60.0]])
    assert float(jensen_shannon(far, -far)) == pytest.approx(np.log(2))


def test_a_classifier_that_is_asked_for_equal_answers_gives_them(material: Material) -> None:
    """Translations that are noise of another brightness: without the term their answers differ more."""
    config, found = settings(steps=40), {}
    (phase,) = regimen_of("translated-consistency", config, material).phases
    made, places = phase.shares[0].beside or (material.generated, np.array([]))
    for weight in (0.0, 20.0):
        net = fit(config, Regimen((replace(phase, agreement=weight),)), CLASSES, CPU, seed=1)
        with torch.no_grad():
            answers = [net(images) for images in (material.dataset.tensor(phase.shares[0].rows), made.tensor(places))]
        found[weight] = float(jensen_shannon(*answers))
    assert found[20.0] < 0.5 * found[0.0]


def test_rare_cells_are_filled_up_to_balance_with_translations(material: Material) -> None:
    (phase,) = regimen_of("minority-translated", settings(), material).phases
    natural, filled = phase.shares
    assert natural.weight == 10 and filled.weight == 4 * 4 - 10  # four cells of as many as the largest has
    table = filled.dataset.manifest.iloc[filled.rows]
    counts = Counter(zip(table["site"], table["label"], strict=True))
    assert ("B", "normal") not in counts
    lacking = {("A", "normal"): 1, ("A", "disease"): 3, ("B", "disease"): 2}
    assert {cell: number / counts["A", "normal"] for cell, number in counts.items()} == lacking


def again(material: Material) -> Material:
    return material_of(dict(material.inputs), material.parts)


def test_what_is_no_translation_of_every_training_image_is_refused(material: Material) -> None:
    path = material.inputs["synthesise"] / "manifest.csv"
    table, known = read_table(path), material.dataset.manifest
    test_image = known["image_id"].iloc[material.rows("test")[0]]
    write_table(path, table.assign(source_image=table["source_image"].replace(table["source_image"][0], test_image)))
    for arm in ("translated-consistency", "translated-crosssitemixup", "translated-pretrained"):
        with pytest.raises(LeakageError, match="not training images of this fold"):
            regimen_of(arm, settings(), again(material))
    few = table["source_image"].where(table["source_image"] != table["source_image"][0], table["source_image"].iloc[-1])
    write_table(path, table.assign(source_image=few))
    with pytest.raises(DataError, match=r"1 of 10 training images have no translation.*samples_per_class"):
        regimen_of("translated-consistency", settings(), again(material))
    write_table(path, table.drop(columns="source_image"))
    with pytest.raises(DataError, match="Use a cyclegan or a stargan"):
        regimen_of("translated-consistency", settings(), again(material))


def test_arms_on_translations_need_a_translator_between_sites() -> None:
    with pytest.raises(ConfigError, match="harmonised send test images through the translator"):
        load_experiment(
            CONFIG, ["arms=[real+classical, harmonised]", "verdict.arm=harmonised", "verdict.comparisons=[]"]
        )
    with pytest.raises(ConfigError, match="minority-translated need a translator between sites"):
        load_experiment(CONFIG, ["gan.between=classes", "gan.semantic=0"])
