"""Arms that know the site: cells in equal numbers, and group DRO step by step as in its paper."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_stage import CLASSES, CPU, MakeInputs, material_of, settings

from pipeline.config.loading import load_experiment
from pipeline.core.errors import ConfigError, DataError
from pipeline.downstream.feature_models import examples_of
from pipeline.downstream.material import Material
from pipeline.downstream.regimens import regimen_of
from pipeline.supervised.batches import Batches
from pipeline.supervised.fit import Phase
from pipeline.supervised.losses import GroupDro

DEMO = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
CELLS, GROUP_DRO = "real+classical+cellbalanced", "real+classical+groupdro"


@pytest.fixture
def material(noise_inputs: MakeInputs, tmp_path: Path) -> Material:
    """24 training images: 4 normal and 4 diseased in hospital A, 8 and 8 in B."""
    return material_of(noise_inputs(num=48), tmp_path / "parts")


def cells_of_rows(material: Material, rows: np.ndarray) -> list[tuple[str, str]]:
    table = material.dataset.manifest.iloc[rows]
    return list(zip(table["hospital"], table["label"], strict=True))


@pytest.mark.parametrize("arm", [CELLS, GROUP_DRO])
def test_batches_hold_every_cell_equally_often_and_training_images_only(material: Material, arm: str) -> None:
    (phase,) = regimen_of(arm, settings(steps=25), material).phases
    (share,) = phase.shares
    assert phase.steps == 25 and phase.classical and set(share.rows) == set(material.rows("train"))
    batches = Batches(phase.shares, 8, CLASSES, "cpu", seed=3)
    assert share.groups is not None
    names = dict(zip(share.groups, cells_of_rows(material, share.rows), strict=True))
    assert len(names) == 4
    for _ in range(6):
        batch = batches.next()
        counts = Counter(names[number] for number in batch.group.tolist())
        assert counts == dict.fromkeys(names.values(), 2)
        labels = [names[number][1] for number in batch.group.tolist()]
        assert [CLASSES[number] for number in batch.target.argmax(dim=1)] == labels


def test_every_image_of_a_cell_is_seen_before_one_comes_again(material: Material) -> None:
    share = material.cells
    batches = Batches((share,), 16, CLASSES, "cpu", seed=0)
    seen = [batches._streams[0].next_rows().tolist() for _ in range(2)]
    counts = Counter(row for rows in seen for row in rows)
    rare = [place for place, cell in enumerate(cells_of_rows(material, share.rows)) if cell[0] == "A"]
    assert len(rare) == 8 and {counts[row] for row in rare} == {2}
    assert {counts[row] for row in range(24) if row not in rare} == {1}


def loss_computer(losses: np.ndarray, group: np.ndarray, weights: np.ndarray, step: float) -> tuple[float, np.ndarray]:
    """The authors' LossComputer.compute_robust_loss in plain numbers, without its options."""
    group_map = (group[None, :] == np.arange(len(weights))[:, None]).astype(float)
    count = group_map.sum(axis=1)
    group_loss = (group_map @ losses) / (count + (count == 0))
    weights = weights * np.exp(step * group_loss)
    weights = weights / weights.sum()
    return float(group_loss @ weights), weights


def test_group_dro_is_the_papers_over_several_steps() -> None:
    """And two groups with losses of ln 2 and ln 4, by hand: at η = 1 their weights become 1/3 and 2/3."""
    robust, random = GroupDro(3, "cpu"), np.random.default_rng(0)
    weights = np.full(3, 1 / 3)
    for _ in range(5):
        logits = torch.from_numpy(random.normal(size=(6, 2))).float()
        target, group = torch.eye(2)[random.integers(0, 2, 6)], random.integers(0, 2, 6)  # the third group is absent
        losses = -(target * logits.log_softmax(1)).sum(1).numpy().astype(float)
        expected, weights = loss_computer(losses, group, weights, 0.01)
        assert float(robust(logits, target, torch.from_numpy(group))) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(robust.weights.numpy(), weights, rtol=1e-5)
    own = GroupDro(2, "cpu", step=1.0)
    logits = torch.tensor([[0.0, 0.0], [0.0, float(np.log(3))]])  # probabilities 1/2 and 1/4 of the first class
    value = own(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    assert own.weights.tolist() == pytest.approx([1 / 3, 2 / 3], rel=1e-5)  # 2 / (2 + 4), 4 / (2 + 4)
    assert float(value) == pytest.approx((1 + 2 * 2) / 3 * np.log(2), rel=1e-5)


def test_no_gradient_goes_through_the_groups_weights() -> None:
    logits = torch.zeros((2, 2), requires_grad=True)
    GroupDro(2, "cpu", step=1.0)(logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])).backward()
    # q stays (1/2, 1/2), so the gradient is half of softmax minus target
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.25], [0.25, -0.25]]))


def test_models_on_features_weigh_the_cells_equally(material: Material) -> None:
    phase = Phase((material.cells,), 1, classical=False)
    found = examples_of(
        settings(), phase, CLASSES, CPU, 0, encode=lambda batch: batch.flatten(1).mean(dim=1, keepdim=True)
    )
    cells = cells_of_rows(material, material.cells.rows)
    totals: Counter[tuple[str, str]] = Counter()
    for cell, weight in zip(cells, found.weight, strict=True):
        totals[cell] += weight
    assert list(totals.values()) == pytest.approx([6.0] * 4)  # 24 images, four cells


def test_they_need_sites(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name the column in data\.site"):
        load_experiment(DEMO, [f"arms=[real+classical, {CELLS}]"])
    assert load_experiment(DEMO, [f"arms=[real+classical, {GROUP_DRO}]", "data.site=sex"]).data.site == "sex"
    plain = Material(settings(), CLASSES, 0, noise_inputs(num=48), tmp_path, CPU, seed=1)
    with pytest.raises(DataError, match=r"Name the column of the site in data\.site"):
        _ = plain.cells
