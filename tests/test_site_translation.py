"""Translation between sites within a class: what is paired, what is kept, and who is never seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.adversarial import fit as gan_stage
from pipeline.adversarial.cells import nets_positive, sources_within_class
from pipeline.adversarial.checkpoints import take_up
from pipeline.adversarial.families.cyclegan import CycleganConfig
from pipeline.adversarial.semantics import JUDGE, FrozenJudge, answers_lost
from pipeline.adversarial.translation import CycleTurn
from pipeline.adversarial.turns import Context
from pipeline.adversarial.weights import load_net
from pipeline.config.experiment import Experiment
from pipeline.config.families import validate_gan
from pipeline.config.gan import WatchConfig
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import ConfigError, LeakageError
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.dataset import open_dataset, read_table, write_table
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Batch, StoredImages
from pipeline.data.cohort.folds import labelled_by_cell, split_ids
from pipeline.nets.conditions import Condition
from pipeline.synthesis import synthesise

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
CELLS = {f"{label} of {site}": (site, label) for site in ("A", "B") for label in CLASSES}
both_dims = pytest.mark.parametrize("size", [(12, 12), (8, 8, 8)])


def gan(**changes: Any) -> CycleganConfig:
    values = {
        "family": "cyclegan", "num_images": 16, "batch_size": 8, "generator_width": 16, "discriminator_width": 4,
        "latent_dim": 4, "embedding_dim": 4, "snapshots": 1, "checkpoints": 1, "by_site": True, "between": "sites",
        "semantic": 1.0, "semantic_steps": 60, "watch": WatchConfig(checks=0),
    }  # fmt: skip
    found = validate_gan(values | changes)
    assert isinstance(found, CycleganConfig)
    return found


def config(**changes: Any) -> gan_stage.FitConfig:
    values = {"gan": gan(), "classes": tuple(CELLS), "positive": ("normal of B", "disease of B"), "cells": CELLS,
              "site": "hospital", "fold": 0, "gan_seed": 0, "seed": 3, "device": "cpu", "precision": "float32",
              "deterministic": False}  # fmt: skip
    return gan_stage.FitConfig(**(values | changes))


@both_dims
def test_each_training_image_becomes_one_of_its_class_at_the_other_site(
    noise_inputs: MakeInputs, tmp_path: Path, size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the frozen classifier learns from training images alone."""
    inputs, learnt = noise_inputs(size, num=48), []
    plain = FrozenJudge.learn

    def spied(judge: FrozenJudge, images: StoredImages, seed: int) -> None:
        assert images.places is not None
        learnt.extend(images.places.tolist())
        plain(judge, images, seed)

    monkeypatch.setattr(FrozenJudge, "learn", spied)
    found = inputs | {"fit-gan": tmp_path / "fit-gan", "synthesise": tmp_path / "synthesise"}
    for name in ("fit-gan", "synthesise"):
        found[name].mkdir()
    gan_stage.run(config(), inputs, found["fit-gan"])
    known = open_dataset(inputs["prepare"]).manifest.set_index("image_id")
    train = split_ids(inputs["split"], 0, "train")
    assert set(known.index[learnt]) == set(train)
    stage = synthesise.SynthesiseConfig(
        samples_per_class=40, truncation_psi=1.0, fold=0, gan_seed=0, seed=1, device="cpu"
    )
    synthesise.run(stage, found, found["synthesise"]).save(found["synthesise"])
    made = open_dataset(found["synthesise"]).manifest
    source = known.loc[made["source_image"]]
    assert list(source["label"]) == list(made["label"]) and (source["hospital"].to_numpy() != made["site"]).all()
    assert set(made["source_image"]) == set(train)
    assert_cycle_errors(found, inputs, made)
    for _, own in made.groupby(["site", "label"]):
        counts = Counter(own["source_image"])
        assert max(counts.values()) - min(counts.values()) <= 1  # in turn


def assert_cycle_errors(found: dict[str, Path], inputs: dict[str, Path], made: Any) -> None:
    """Each as the translator itself says, asked image by image."""
    net, real = load_net(found["fit-gan"], "generator")[0], open_dataset(inputs["prepare"])
    images = open_dataset(found["synthesise"])
    for row in (0, len(made) - 1):
        one = made.iloc[row]
        source = real.tensor(real.rows([one["source_image"]]))
        site = "B" if one["site"] == "A" else "A"
        label = torch.tensor([list(CELLS).index(f"{one['label']} of {site}")])
        way_back = net.to_b if site == "B" else net.to_a
        with torch.no_grad():
            back = way_back(images.tensor(np.array([row])), Condition(label=label))
        error = float((back - source).abs().mean()) / 2
        assert float(one["cycle_error"]) == pytest.approx(error, abs=2e-5)


def test_rows_of_a_batch_are_of_one_class_and_of_both_sites(noise_inputs: MakeInputs) -> None:
    """However many images a cell has: A has a third of them."""
    inputs = noise_inputs(num=48)
    dataset = labelled_by_cell(open_dataset(inputs["prepare"]), "hospital")
    rows = dataset.rows(split_ids(inputs["split"], 0, "train"))
    training, _ = gan_stage.start(config(gan=gan(batch_size=6)), dataset, rows)
    names = list(CELLS)
    for _ in range(5):
        first, second = (
            [CELLS[names[number]] for number in training.streams[name].next().label.tolist()]
            for name in ("domain_a", "domain_b")
        )
        assert [label for _, label in first] == [label for _, label in second]
        assert {site for site, _ in first} == {"A"} and {site for site, _ in second} == {"B"}
        assert set(Counter(label for _, label in first).values()) == {3}


@pytest.mark.parametrize("column", ["pixel_digest", "patient_id"])
def test_a_test_image_in_its_stream_is_a_leak(noise_inputs: MakeInputs, tmp_path: Path, column: str) -> None:
    inputs = noise_inputs(num=48)
    table = read_table(inputs["split"] / "manifest.csv")
    table.loc[0, column] = table[column].iloc[-1]
    write_table(inputs["split"] / "manifest.csv", table)
    with pytest.raises(LeakageError, match="are in more than one of train, val, test"):
        gan_stage.run(config(), inputs, tmp_path)


def test_the_judge_learns_the_class_stands_still_and_teaches_the_translators(noise_inputs: MakeInputs) -> None:
    inputs = noise_inputs(num=48)
    dataset = labelled_by_cell(open_dataset(inputs["prepare"]), "hospital")
    rows = dataset.rows(split_ids(inputs["split"], 0, "train"))
    training, _ = gan_stage.start(config(), dataset, rows)
    judge = training.context.states[JUDGE]
    held = dataset.rows(split_ids(inputs["split"], 0, "test"))
    disease = np.array(["disease" in label for label in dataset.manifest["label"].iloc[held]])
    assert (judge(dataset.tensor(held)).argmax(dim=1).numpy() == disease).all()  # the disease is plainly brighter
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    training.context.states[JUDGE].train()
    turn = training.turn(training.recipe.players[1])
    assert isinstance(turn, CycleTurn)
    answers_lost(turn).backward()
    moved = [weight.grad for weight in training.context.nets["generator"].parameters()]
    assert any(grad is not None and float(grad.abs().sum()) > 0 for grad in moved)
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())
    again, _ = gan_stage.start(config(), dataset, rows)
    assert all(torch.equal(value, before[name]) for name, value in again.context.states[JUDGE].state_dict().items())
    state = training.state_dict()
    state["states"][JUDGE] = {name: value + 1 for name, value in before.items()}
    take_up(again, state)  # a resumed training goes on with the judge that it had
    assert all(torch.equal(value, before[name] + 1) for name, value in again.context.states[JUDGE].state_dict().items())


class Answers(nn.Module):
    """Calls an image of grey g ill with probability g."""

    def forward(self, images: Tensor) -> Tensor:
        ill = images.flatten(1).mean(dim=1)
        return torch.stack([1 - ill, ill], dim=1).log()


class Move(nn.Module):
    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = step

    def forward(self, images: Tensor, condition: Any) -> Tensor:
        return images + self.step


def turn_of(noise: float = 0.0, size: int = 4) -> CycleTurn:
    """Images of a are 0.5, of b 0.25; to_b takes 0.25 away, to_a adds 0.5."""
    generator = nn.Module()
    generator.to_a, generator.to_b = Move(0.5), Move(-0.25)
    policy = gan().augment.model_copy(update={"shift": 0.0})
    draws = Draws(torch.Generator().manual_seed(0))
    context = Context({"generator": generator}, Augmenter(policy), draws, nullcontext(), {JUDGE: Answers()})
    label = torch.tensor([0, 1])
    batches = {
        "domain_a": Batch(torch.full((2, 1, size, size), 0.5), label),
        "domain_b": Batch(torch.full((2, 1, size, size), 0.25), label + 2),
    }
    return CycleTurn(context, batches, ("generator",), noise)


def test_answers_lost_is_the_divergence_written_out() -> None:
    """a: p = (1/2, 1/2) becomes (3/4, 1/4); b: (3/4, 1/4) becomes (1/4, 3/4)."""
    first = 0.5 * np.log(2 / 3) + 0.5 * np.log(2)
    second = 0.75 * np.log(3) + 0.25 * np.log(1 / 3)
    assert float(answers_lost(turn_of())) == pytest.approx(first + second, rel=1e-5)


def test_noise_lies_on_the_translation_that_is_translated_back_alone() -> None:
    turn = turn_of(noise=0.1, size=64)
    for cycled, plain in zip(turn.cycled, (0.75, 0.5), strict=True):
        assert float(cycled.mean()) == pytest.approx(plain, abs=0.01) and float(cycled.std()) == pytest.approx(
            0.1, rel=0.05
        )
    assert float(turn.fake[0].std()) == float(turn.fake[1].std()) == 0
    assert float(turn_of(size=64).cycled[0].std()) == 0


def experiment(sites: tuple[str, ...] = ("A", "B"), **gan_changes: Any) -> Experiment:
    data = {"source": {"kind": "csv", "path": "a.csv"}, "classes": ["well", "ill"], "positive": ["ill"],
            "site": "hospital", "correlation": {site: {"well": 5, "ill": 5} for site in sites}}  # fmt: skip
    asked = {"family": "cyclegan", "by_site": True, "between": "sites"} | gan_changes
    values = {"name": "t", "data": data, "gan": asked,
              "anomaly": {"detectors": []}, "arms": ["real+classical"]}  # fmt: skip
    return validate_experiment(values, "t")


def test_which_cells_are_the_other_domain_and_what_cannot_be_meant() -> None:
    found = gan_stage.fit_config(experiment(), 0, 0)
    assert found.classes == ("well of A", "ill of A", "well of B", "ill of B")
    assert found.positive == ("well of B", "ill of B")
    assert sources_within_class(found.gan, found.classes, found.cells) == {0: (2,), 1: (3,), 2: (0,), 3: (1,)}
    plain = experiment(between="classes")
    assert nets_positive(plain, found.cells) == ("ill of A", "ill of B")
    with pytest.raises(ConfigError, match="between two sites, and there are 3"):
        gan_stage.fit_config(experiment(("A", "B", "C")), 0, 0)
    with pytest.raises(ConfigError, match="set by_site: true"):
        experiment(by_site=False)
    with pytest.raises(ConfigError, match="semantic keeps the class"):
        experiment(between="classes", semantic=1.0)
