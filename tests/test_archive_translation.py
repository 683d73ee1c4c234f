"""A translator that knows no classes: it learns from archives, and reads no label there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from arm_stage import material_of, settings
from test_site_translation import CELLS, config, gan
from test_translation_quality import CONFIG, striped

from pipeline.adversarial import fit as gan_stage
from pipeline.adversarial.cells import by_site_alone
from pipeline.adversarial.families import learns_from_pool
from pipeline.adversarial.semantics import FrozenJudge
from pipeline.adversarial.weights import load_net, read_description
from pipeline.core.errors import DataError, LeakageError
from pipeline.core.guard import TRANSLATION
from pipeline.data.batches.dataset import open_dataset, read_table, write_table
from pipeline.data.batches.streams import StoredImages
from pipeline.data.cohort.folds import open_fold, split_ids
from pipeline.downstream.harmonised import harmoniser
from pipeline.downstream.regimens import regimen_of
from pipeline.nets.conditions import Condition
from pipeline.nets.translators import DomainTranslators
from pipeline.quality.measure import run as measure
from pipeline.synthesis import synthesise

MakeInputs = Callable[..., dict[str, Path]]
STAGE = synthesise.SynthesiseConfig(samples_per_class=20, truncation_psi=1.0, fold=0, gan_seed=0, seed=1, device="cpu")


def blind(**changes: Any) -> gan_stage.FitConfig:
    asked = gan(between="archives", **changes)
    return config(gan=asked, classes=("A", "B"), positive=("B",))


@pytest.fixture
def inputs(noise_inputs: MakeInputs) -> dict[str, Path]:
    """Of 30 training images the 20 of hospital B have no label; the diseased are brighter, and B's have stripes."""
    found = noise_inputs((16, 16), num=60)
    np.save(found["prepare"] / "images.npy", striped(np.load(found["prepare"] / "images.npy"), np.arange(60) % 3 != 0))
    splits = read_table(found["split"] / "splits.csv")
    hidden = (splits["split"] == "train") & (np.arange(60) % 3 != 0)
    write_table(found["split"] / "splits.csv", splits.assign(split=splits["split"].mask(hidden, "unlabelled")))
    return found


def translated(inputs: dict[str, Path], place: Path) -> dict[str, Path]:
    """A trained translator, and what it makes."""
    found = inputs | {name: place / name for name in ("fit-gan", "synthesise", "quality")}
    for name in ("fit-gan", "synthesise", "quality"):
        found[name].mkdir(parents=True)
    gan_stage.run(blind(), inputs, found["fit-gan"])
    synthesise.run(STAGE, found, found["synthesise"]).save(found["synthesise"])
    return found


def test_it_learns_from_archives_and_reads_no_label_there(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other labels of the archive give the same weights; the frozen classifier learns from labelled images alone."""
    taught: list[int] = []
    plain = FrozenJudge.learn

    def spied(judge: FrozenJudge, images: StoredImages, seed: int) -> None:
        assert images.cell is not None and images.places is not None
        taught.extend(images.places[images.cell >= 0].tolist())
        plain(judge, images, seed)

    monkeypatch.setattr(FrozenJudge, "learn", spied)
    first = read_description(translated(inputs, tmp_path / "first")["fit-gan"])
    known = open_dataset(inputs["prepare"]).manifest
    assert set(known["image_id"].iloc[taught]) == set(split_ids(inputs["split"], 0, "train"))
    assert set(known["hospital"].iloc[taught]) == {"A"} and first["train_images"] == 30
    other = known.assign(label=known["label"].mask(known["hospital"] == "B", "normal"))
    write_table(inputs["prepare"] / "manifest.csv", other)
    assert read_description(translated(inputs, tmp_path / "second")["fit-gan"])["weights"] == first["weights"]


def test_batches_hold_each_site_whole(inputs: dict[str, Path]) -> None:
    known = open_fold(inputs["prepare"], inputs["split"], 0)
    learnt = [one for part in ("train", "unlabelled") for one in split_ids(inputs["split"], 0, part)]
    dataset = by_site_alone(known, "hospital", learnt, ("A", "B"), 0)
    training, _ = gan_stage.start(blind(batch_size=10), dataset, dataset.rows(learnt))
    for name, site, number in (("domain_a", "A", 10), ("domain_b", "B", 20)):
        stream = training.streams[name]
        assert len(stream.images.label) == number
        places = stream.images.places
        assert places is not None and set(known.manifest["hospital"].iloc[places.tolist()]) == {site}
    none = [one for one in learnt if one in set(known.manifest["image_id"][known.manifest["hospital"] == "A"])]
    with pytest.raises(DataError, match="has no image of B to learn from"):
        by_site_alone(known, "hospital", none, ("A", "B"), 0)


def test_what_it_makes_is_measured_and_teaches_the_adapted_arm(inputs: dict[str, Path], tmp_path: Path) -> None:
    found = translated(inputs, tmp_path)
    made = open_dataset(found["synthesise"]).manifest
    source = open_dataset(inputs["prepare"]).manifest.set_index("image_id").loc[made["source_image"]]
    assert set(made["site"]) == {"B"} and set(source["hospital"]) == {"A"}
    assert list(made["label"]) == list(source["label"]) and set(made["label"]) == {"normal", "disease"}
    assert made["cycle_error"].astype(float).between(0, 1).all()

    measure(CONFIG, found, found["quality"])
    table = pd.read_csv(found["quality"] / "metrics.csv", dtype=str, keep_default_na=False)
    table = table[table["stage"] == TRANSLATION].set_index(["metric", "label"])
    assert set(table["subgroup"]) == {"site = B"}
    for label in ("normal", "disease"):
        assert float(table.loc[("called_target_real", label), "value"]) > 0.8  # unlabelled images of B, of any class
        assert "20:" in table.loc[("kid_target", label), "detail"]

    material = replace(material_of(found, tmp_path / "parts"), archives=("B",))
    (share,) = regimen_of("adapted", settings(), material).phases[0].shares
    assert share.dataset is material.generated and sorted(share.rows) == list(range(len(made)))
    with pytest.raises(DataError, match="the GAN made none"):
        regimen_of("adapted", settings(), material_of(found, tmp_path / "none"))
    stranger = split_ids(inputs["split"], 0, "test")[0]
    write_table(found["synthesise"] / "manifest.csv", made.assign(source_image=stranger))
    with pytest.raises(LeakageError, match="are not training images of this fold"):
        regimen_of("adapted", settings(), replace(material_of(found, tmp_path / "other"), archives=("B",)))


def test_test_images_too_are_seen_at_the_unlabelled_site(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Those of A translated, those of B there and back; by this fold's translator, which knows no classes."""
    found = translated(inputs, tmp_path)
    plain = replace(material_of(found, tmp_path / "parts"), archives=("B",))
    seen = plain.seen_as("harmonised").dataset.tensor(np.arange(60))
    net, _ = load_net(found["fit-gan"], "generator")
    assert isinstance(net, DomainTranslators)
    images = plain.dataset.tensor(np.arange(60))
    with torch.no_grad():
        label = torch.zeros(60, dtype=torch.int64)
        to_a, to_b = (
            lambda given, translate=one, number=number: translate(given, Condition(label=label + number))
            for number, one in enumerate((net.to_a, net.to_b))
        )
        expected = torch.where(torch.tensor(plain.sites == "A").view(-1, 1, 1, 1), to_b(images), to_b(to_a(images)))
    torch.testing.assert_close(seen, expected, atol=2e-3, rtol=0)  # kept in float16

    (share,) = regimen_of("harmonised", settings(), plain.seen_as("harmonised")).phases[0].shares
    assert set(share.rows) == set(plain.rows("train"))
    (made, judged) = regimen_of("adapted-pseudolabels", settings(), plain).phases[0].shares
    assert made.dataset is plain.generated and judged.soft is not None and set(judged.rows) == set(plain.target_rows)
    np.testing.assert_allclose(judged.soft.sum(axis=1), 1, atol=1e-5)

    with pytest.raises(LeakageError, match="the translator is of fold 0 and may have seen patients"):
        harmoniser(found["fit-gan"], 1, "B", "cpu")
    described = (found["fit-gan"] / "model.json").read_text()
    (found["fit-gan"] / "model.json").write_text(described.replace('"archives"', '"sites"'))
    with pytest.raises(DataError, match="harmonised needs a translator that knows no classes"):
        harmoniser(found["fit-gan"], 0, "B", "cpu")


def test_a_release_knows_that_it_saw_the_archive() -> None:
    assert learns_from_pool(gan(between="archives")) and not learns_from_pool(gan())
    assert len(CELLS) == 4
