"""One translator between several sites: who becomes what, what is kept, and the way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from arm_stage import material_of, settings
from test_site_translation import Answers, Move, experiment
from test_site_translation import config as config_of_two_sites
from test_translation_quality import CONFIG
from torch import nn

from pipeline.adversarial import fit as gan_stage
from pipeline.adversarial.cells import sources_within_class
from pipeline.adversarial.families.stargan import StarganConfig
from pipeline.adversarial.semantics import JUDGE, answers_lost
from pipeline.adversarial.star import BUFFER, StarTurn
from pipeline.adversarial.translation import ImageBuffer, cycle_error, identity_error
from pipeline.adversarial.turns import Context
from pipeline.adversarial.weights import load_net
from pipeline.config.families import validate_gan
from pipeline.config.gan import WatchConfig
from pipeline.core.errors import ConfigError
from pipeline.core.guard import TRANSLATION
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.dataset import open_dataset, read_table, write_table
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Batch
from pipeline.data.cohort.folds import split_ids
from pipeline.downstream.harmonised import harmoniser
from pipeline.downstream.regimens import regimen_of
from pipeline.nets.conditions import Condition
from pipeline.nets.sizes import ImageShape
from pipeline.nets.translators import StarTranslator
from pipeline.quality.measure import run as measure
from pipeline.synthesis import synthesise

MakeInputs = Callable[..., dict[str, Path]]
SITES, CLASSES = ("A", "B", "C"), ("normal", "disease")
CELLS = {f"{label} of {site}": (site, label) for site in SITES for label in CLASSES}


def gan(**changes: Any) -> StarganConfig:
    values = {
        "family": "stargan", "num_images": 16, "batch_size": 6, "generator_width": 16, "discriminator_width": 4,
        "latent_dim": 4, "embedding_dim": 4, "snapshots": 1, "checkpoints": 1, "by_site": True, "between": "sites",
        "semantic": 1.0, "semantic_steps": 20, "watch": WatchConfig(checks=0),
    }  # fmt: skip
    found = validate_gan(values | changes)
    assert isinstance(found, StarganConfig)
    return found


def config(**changes: Any) -> gan_stage.FitConfig:
    own = {"gan": gan(), "classes": tuple(CELLS), "positive": tuple(CELLS)[2:], "cells": CELLS}
    return config_of_two_sites(**(own | changes))


def of_three_sites(inputs: dict[str, Path]) -> dict[str, Path]:
    for name in ("prepare", "split"):
        table = read_table(inputs[name] / "manifest.csv")
        write_table(inputs[name] / "manifest.csv", table.assign(hospital=np.array(SITES)[np.arange(len(table)) % 3]))
    return inputs


def translated(inputs: dict[str, Path], place: Path, fitted: gan_stage.FitConfig) -> dict[str, Path]:
    """A trained translator, what it makes, and a place for what is measured of it."""
    found = of_three_sites(inputs) | {name: place / name for name in ("fit-gan", "synthesise", "quality")}
    for name in ("fit-gan", "synthesise", "quality"):
        found[name].mkdir(parents=True)
    gan_stage.run(fitted, found, found["fit-gan"])
    stage = synthesise.SynthesiseConfig(
        samples_per_class=60, truncation_psi=1.0, fold=0, gan_seed=0, seed=1, device="cpu"
    )
    synthesise.run(stage, found, found["synthesise"]).save(found["synthesise"])
    return found


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)])
def test_each_training_image_becomes_one_of_its_class_at_every_other_site(
    noise_inputs: MakeInputs, tmp_path: Path, size: tuple[int, ...]
) -> None:
    found = translated(noise_inputs(size, num=72), tmp_path, config())
    known, images = open_dataset(found["prepare"]), open_dataset(found["synthesise"])
    made, table = images.manifest, known.manifest.set_index("image_id")
    source = table.loc[made["source_image"]]
    assert list(source["label"]) == list(made["label"])
    pairs = Counter(zip(made["source_image"], made["site"], strict=True))
    train = split_ids(found["split"], 0, "train")
    assert set(pairs) == {(one, site) for one in train for site in SITES if site != table.loc[one, "hospital"]}

    net, _ = load_net(found["fit-gan"], "generator")
    assert isinstance(net, StarTranslator)
    for row in (0, len(made) - 1):  # the way back is to the source's own site
        one = made.iloc[row]
        real = known.tensor(known.rows([one["source_image"]]))
        label = torch.tensor([list(CELLS).index(f"{one['label']} of {table.loc[one['source_image'], 'hospital']}")])
        with torch.no_grad():
            back = net.translator(images.tensor(np.array([row])), Condition(label=label))
        assert float(one["cycle_error"]) == pytest.approx(float((back - real).abs().mean()) / 2, abs=2e-5)


def test_sites_of_an_archive_are_translated_measured_and_harmonised(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    """Without classes, and all images at the third site in the end."""
    blind = config(gan=gan(between="archives", semantic=0.0), classes=SITES, positive=SITES[1:])
    assert sources_within_class(blind.gan, SITES, CELLS) == {0: (1, 2), 1: (0, 2), 2: (0, 1)}
    found = translated(noise_inputs((16, 16), num=72), tmp_path, blind)
    measure(CONFIG, found, found["quality"])
    table = pd.read_csv(found["quality"] / "metrics.csv", dtype=str, keep_default_na=False)
    flips = table[(table["stage"] == TRANSLATION) & (table["metric"] == "label_flips")]
    assert sorted(zip(flips["subgroup"], flips["label"], strict=True)) == sorted(
        (f"site = {site}", label) for site in SITES for label in CLASSES
    )
    assert set(flips["n_images"]) == {"12"}  # of each class the images of both other sites

    images = open_dataset(found["prepare"]).tensor(np.arange(6)).numpy()
    net, _ = load_net(found["fit-gan"], "generator")
    assert isinstance(net, StarTranslator)

    def to(number: int, given: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            label = torch.full((len(given),), number)
            return net.translator(torch.from_numpy(given), Condition(label=label)).numpy()  # type: ignore[no-any-return]

    seen = harmoniser(found["fit-gan"], 0, "C", "cpu")(images, np.array(["A", "B", "C"] * 2))
    np.testing.assert_allclose(seen[[0, 1, 3, 4]], to(2, images[[0, 1, 3, 4]]), atol=1e-6)
    np.testing.assert_allclose(seen[[2, 5]], to(2, to(0, images[[2, 5]])), atol=1e-6)
    (phase,) = regimen_of("translated-crosssitemixup", settings(), material_of(found, tmp_path / "parts")).phases
    real, made = phase.shares
    assert set(np.unique(made.domains)) == set(np.unique(real.domains)) == {0, 1, 2}


def test_classes_go_to_their_own_place_at_another_site() -> None:
    shape = ImageShape((8, 8), 1, num_classes=6, classes_a_site=2)
    by_site, by_class = StarTranslator(shape, 4, 4, 4, step=2), StarTranslator(shape, 4, 4, 4)
    label = torch.arange(6)
    assert by_site.domains == 3 and by_class.domains == 6
    assert by_site.elsewhere(label, torch.tensor(1)).tolist() == [2, 3, 4, 5, 0, 1]
    assert by_site.elsewhere(label, torch.tensor([2, 1, 2, 1, 2, 1])).tolist() == [4, 3, 0, 5, 2, 1]
    assert by_class.elsewhere(label, torch.tensor(5)).tolist() == [5, 0, 1, 2, 3, 4]


def turn_of(noise: float = 0.0, size: int = 4) -> StarTurn:
    """Images of 0.5; whatever is asked for takes 0.25 away."""
    generator = StarTranslator(ImageShape((8, 8), 1, num_classes=4), 4, 4, 4, step=2)
    generator.translator = Move(-0.25)  # type: ignore[assignment]
    draws, policy = Draws(torch.Generator().manual_seed(0)), gan().augment.model_copy(update={"shift": 0.0})
    states: dict[str, nn.Module] = {JUDGE: Answers(), BUFFER: ImageBuffer(0)}
    context = Context({"generator": generator}, Augmenter(policy), draws, nullcontext(), states)
    images = torch.full((8, 1, size, size), 0.5)
    return StarTurn(context, {"labelled": Batch(images, torch.arange(8) % 4)}, ("generator",), noise)


def test_terms_are_means_over_the_batch_written_out() -> None:
    """0.5 becomes 0.25, and 0 after the way back; p = (1/2, 1/2) becomes (3/4, 1/4)."""
    turn = turn_of()
    assert float(cycle_error(turn)) == pytest.approx(0.5) and float(identity_error(turn)) == pytest.approx(0.25)
    assert float(answers_lost(turn)) == pytest.approx(0.5 * np.log(2 / 3) + 0.5 * np.log(2), rel=1e-5)
    assert turn.asked.required_label().tolist() == [2, 3, 0, 1] * 2
    noisy = turn_of(noise=0.1, size=64)
    assert float(noisy.cycled[0].std()) == pytest.approx(0.1, rel=0.05) and float(noisy.translated[0].std()) == 0


def test_three_sites_ask_for_it_and_two_do_not() -> None:
    found = gan_stage.fit_config(experiment(SITES, family="stargan"), 0, 0)
    assert found.positive == ("well of B", "ill of B", "well of C", "ill of C")
    assert sources_within_class(found.gan, found.classes, found.cells) == {
        0: (2, 4), 1: (3, 5), 2: (0, 4), 3: (1, 5), 4: (0, 2), 5: (1, 3),
    }  # fmt: skip
    assert gan_stage.fit_config(experiment(family="stargan"), 0, 0).positive == ("well of B", "ill of B")
    with pytest.raises(ConfigError, match="stargan translates between several"):
        gan_stage.fit_config(experiment(SITES), 0, 0)
