"""FixMatch: its loss against the paper's formula, what its batches hold, and what its loss does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from arm_stage import CLASSES, CPU, MakeInputs, material_of, settings, with_generator, with_pool
from torch import nn

from pipeline.config.arms import ARMS
from pipeline.config.augment import AugmentConfig, strong, with_appearance
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.draws import Draws
from pipeline.downstream.material import Material
from pipeline.downstream.regimens import regimen_of
from pipeline.supervised.batches import Batches, Mixed, Share
from pipeline.supervised.fit import ClassifierTraining, Phase, Regimen, fit
from pipeline.supervised.losses import fixmatch

ARM = "real+classical+fixmatch"


@pytest.fixture
def material(noise_inputs: MakeInputs, tmp_path: Path) -> Material:
    return material_of(with_pool(noise_inputs(num=48)), tmp_path / "parts")


def test_sure_answers_alone_are_learnt_from() -> None:
    """Equation 4 of the paper, worked: p = (0.96, 0.04) is sure, (0.94, 0.06) is not; the mean is over both."""
    weak = torch.log(torch.tensor([[0.96, 0.04], [0.94, 0.06], [0.01, 0.99]])).requires_grad_()
    copies = torch.log(torch.tensor([[0.3, 0.7], [0.3, 0.7], [0.3, 0.7]])).requires_grad_()
    loss = fixmatch(weak, copies)
    assert loss.item() == pytest.approx((-np.log(0.3) - np.log(0.7)) / 3, rel=1e-5)
    loss.backward()
    assert weak.grad is None and copies.grad is not None and not copies.grad[1].any() and copies.grad[0].any()
    assert fixmatch(weak, copies, threshold=0.999).item() == 0


def test_its_batches_hold_seven_images_without_a_label_for_each_labelled_one(material: Material) -> None:
    (phase,) = regimen_of(ARM, settings(), material).phases
    real, pool = phase.shares
    assert phase.fixmatch and set(real.rows) == set(material.rows("train"))
    assert set(pool.rows) == set(material.rows("unlabelled")) and not pool.labelled and pool.soft is None
    batch = Batches(phase.shares, 8, CLASSES, "cpu", seed=0).next()
    assert batch.weight.tolist() == [1.0] + [0.0] * 7 and not batch.target[1:].any()
    assert ARMS[ARM].pool and ARMS[ARM].trainings == 2 and not ARMS[ARM].on_features and not ARMS[ARM].candidate


def test_with_a_gans_images_those_without_a_label_alone_weigh_nothing(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    """In a batch of 36: 2 labelled, 20 of the GAN (or of the ensemble's labels), which fade, and 14 for FixMatch."""
    material = material_of(with_generator(with_pool(noise_inputs(num=48)), tmp_path), tmp_path / "parts")
    for arm, label_from in (("pool-gan+fixmatch", "synthetic"), ("real+classical+fadingpseudolabels+fixmatch", "pool")):
        (phase,) = regimen_of(arm, settings(), material).phases
        assert [(share.weight, share.fades) for share in phase.shares] == [(1.0, False), (10.0, True), (7.0, False)]
        assert phase.fixmatch and phase.shares[1].soft is not None and not phase.shares[2].labelled
        drawn = Batches(phase.shares, 36, CLASSES, "cpu", seed=0)
        for progress in (0.0, 0.9):
            weight = drawn.next(progress).weight
            torch.testing.assert_close(weight, torch.tensor([1.0] * 2 + [1 - progress] * 20 + [0.0] * 14))
        assert (phase.shares[1].dataset is material.generated) == (label_from == "synthetic")


def test_the_copies_are_of_the_images_without_a_label_and_more_strongly_transformed(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = AugmentConfig(**dict.fromkeys(("brightness", "contrast", "shift", "rotate_degrees", "scale", "noise"), 0))
    config = settings().model_copy(update={"augment": still})
    (phase,) = regimen_of(ARM, config, material).phases
    training = ClassifierTraining(config, Regimen((phase,)), CLASSES, CPU, seed=0)
    seen: list[Mixed] = []
    shown = training._shown
    monkeypatch.setattr(training, "_shown", lambda *given: seen.append(shown(*given)) or seen[-1])
    training.run(replace(phase, steps=1))
    batch, raw = seen[0], Batches(phase.shares, 8, CLASSES, "cpu", training.seed, 0).next()
    torch.testing.assert_close(batch.images, raw.images)
    assert batch.beside is not None and batch.beside.shape == raw.images[1:].shape
    black = (batch.beside == -1).flatten(1).float().mean(dim=1)
    assert black.min() >= 0.125 and black.max() > 0.2, "a square of half the side is cut out, or what lies within of it"
    policy = strong(still)
    assert policy.cutout == 0.5 and policy.model_copy(update={"cutout": 0.0}) == with_appearance(still)


def test_answers_on_strongly_transformed_images_come_to_those_on_the_images(material: Material) -> None:
    """And no label of theirs is read: other labels in the manifest, the same network."""
    truth = np.arange(160) % 2
    images = np.random.default_rng(0).integers(0, 200, (160, *material.plain.images.shape[1:]))
    images[truth == 1, :, :6] += 30
    table = material.plain.manifest.iloc[np.zeros(160, dtype=int)].reset_index(drop=True)
    table = table.assign(image_id=[str(number) for number in range(160)], label=np.array(CLASSES)[truth])
    dataset = replace(material.plain, manifest=table, images=images.astype(np.uint8))
    config, rows = settings().model_copy(update={"batch_size": 32}), np.arange(8, 160)

    def trained(seen: DataSet, *, with_loss: bool) -> nn.Module:
        shares = (Share(seen, np.arange(8)), Share(seen, rows, weight=7.0, labelled=False))
        return fit(config, Regimen((Phase(shares, 100, fixmatch=with_loss),)), CLASSES, CPU, seed=1)

    def apart(net: nn.Module) -> float:
        """Cross-entropy of its answers on transformed images to those on the images as they are."""
        plain = dataset.tensor(rows)
        copies = Augmenter(strong(config.augment))(plain, Draws(torch.Generator().manual_seed(0)))
        with torch.no_grad():
            return float(nn.functional.cross_entropy(net(copies), net(plain).argmax(dim=1)))

    found = trained(dataset, with_loss=True)
    assert apart(found) < 0.7 * apart(trained(dataset, with_loss=False))
    others = replace(dataset, manifest=table.assign(label=table["label"].where(table.index < 8, CLASSES[0])))
    for one, two in zip(found.parameters(), trained(others, with_loss=True).parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
