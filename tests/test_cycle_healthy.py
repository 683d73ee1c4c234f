"""The translator to normal: what it changes, whom it learns from, and when it has nothing to learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from detecting import BUDGET, SHAPES, data_set, normal_tensor, normals_of, planted_tensor, setting_of, smooth_images
from torch import Tensor, nn

from pipeline.anomaly import detect
from pipeline.anomaly.cohort import cohort_of
from pipeline.anomaly.detector import ImageSet
from pipeline.anomaly.detectors import DETECTORS
from pipeline.core.errors import DataError, LeakageError
from pipeline.nets.conditions import Condition

MakeInputs = Callable[..., dict[str, Path]]


def test_cycle_healthy_scores_what_its_translation_changes() -> None:
    detector = DETECTORS["cycle-healthy"].make(setting_of(2))
    asked = []

    class Darker(nn.Module):
        def forward(self, images: Tensor, condition: Condition) -> Tensor:
            asked.append(condition.required_label().tolist())
            return images - torch.tensor([0.5, 0.1]).view(2, 1, 1, 1) * (images > 0)

    detector.to_normal = Darker()
    images = -torch.ones(2, 1, *SHAPES[2])
    images[:, :, :4, :8] = 0.5  # an eighth of 16 x 16
    torch.testing.assert_close(detector.score(images), torch.tensor([0.5 / 8, 0.1 / 8]))
    found = detector.map(images)
    assert found is not None
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([0.5, 0.1]))
    assert (found[:, 5] == 0).all() and asked == [[1, 1], [1, 1]]


def test_cycle_healthy_reads_no_label_and_keeps_the_way_to_normal_alone() -> None:
    """Other labels of the mixed images change nothing; other images do."""
    scores = []
    normals = normals_of(2)
    table = normals.mixed.dataset.manifest
    other = replace(
        normals.mixed.dataset, manifest=table.assign(label=np.resize(["disease", "normal", ""], len(table)))
    )
    for mixed in (normals.mixed, ImageSet(other, normals.mixed.rows), ImageSet(other, normals.mixed.rows[8:])):
        detector = DETECTORS["cycle-healthy"].make(setting_of(2))
        detector.fit(replace(normals, mixed=mixed))
        scores.append(detector.score(planted_tensor(2)))
    assert {name.split(".")[0] for name in detector.state_dict()} == {"to_normal"}
    assert torch.equal(scores[0], scores[1]) and not torch.allclose(scores[0], scores[2], atol=1e-4)


def test_cycle_healthy_takes_a_planted_square_away() -> None:
    """Half of the mixed images have one, no normal image does: most of its contrast, 90 of 255 grey levels, goes."""
    longer = BUDGET.model_copy(update={"steps": 60, "batch_size": 64})
    shape = SHAPES[2]
    mixed = np.concatenate([smooth_images(24, shape, 3), smooth_images(24, shape, 4, planted=True)])
    detector = DETECTORS["cycle-healthy"].make(setting_of(2, config=longer))
    detector.fit(replace(normals_of(2, 48), mixed=ImageSet(data_set(mixed), np.arange(48))))
    normal, planted = detector.score(normal_tensor(2, 20)), detector.score(planted_tensor(2, 20))
    assert (planted[:, None] > normal[None]).float().mean() > 0.9
    found = detector.map(planted_tensor(2, 20))
    assert found is not None
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[1:6, 1:6] = True
    assert found[:, inside].mean() > 0.7 * 2 * 90 / 255  # images are in [-1, 1]
    assert found[:, ~inside].mean() < 0.1


def test_without_an_abnormal_or_unlabelled_training_image_there_is_nothing_to_translate() -> None:
    normals = normals_of(2)
    alone = replace(normals, mixed=ImageSet(normals.train.dataset, normals.train.rows[:10]))
    assert alone.nothing_mixed and not normals.nothing_mixed
    with pytest.raises(DataError, match="nothing to translate from"):
        DETECTORS["cycle-healthy"].make(setting_of(2)).fit(alone)


def resplit(inputs: dict[str, Path], parts: list[str]) -> None:
    """Give every image its part of fold 0."""
    for name in ("splits.csv", "manifest.csv"):
        table = pd.read_csv(inputs["split"] / name, dtype=str, keep_default_na=False)
        table.assign(split=parts).to_csv(inputs["split"] / name, index=False)


def test_mixed_images_are_of_training_and_unlabelled_patients_and_of_nobody_else(noise_inputs: MakeInputs) -> None:
    """Images 0 to 5 train, 6 to 11 unlabelled, then val, test and external; a shared patient or copy is refused."""
    inputs = noise_inputs()
    parts = ["train"] * 6 + ["unlabelled"] * 6 + ["val"] * 4 + ["test"] * 4 + ["external"] * 2 + ["unused"] * 2
    resplit(inputs, parts)
    cohort = cohort_of(inputs["prepare"], inputs["split"], 0, ("normal",))
    mixed = cohort.normals.mixed
    assert mixed.rows.tolist() == list(range(12))
    known = mixed.dataset.manifest["label"].iloc[mixed.rows].tolist()
    assert known == ["normal", "disease"] * 3 + [""] * 6  # what is unlabelled has no label there
    tried = np.concatenate([images.rows for images in cohort.tried.values()])
    patients = mixed.dataset.manifest["patient_id"].to_numpy()
    assert len(tried) == 10 and not set(patients[mixed.rows]) & set(patients[tried])
    for column, where in (("patient_id", ("prepare", "split")), ("pixel_digest", ("split",))):
        for number in (13, 17, 21):  # of val, test and the external site
            kept = {name: (inputs[name] / "manifest.csv").read_text(encoding="utf-8") for name in where}
            for name in where:
                table = pd.read_csv(inputs[name] / "manifest.csv", dtype=str, keep_default_na=False)
                table.loc[number, column] = table.loc[8, column]  # an unlabelled one
                table.to_csv(inputs[name] / "manifest.csv", index=False)
            with pytest.raises(LeakageError):
                cohort_of(inputs["prepare"], inputs["split"], 0, ("normal",))
            for name, text in kept.items():
                (inputs[name] / "manifest.csv").write_text(text, encoding="utf-8")


def test_the_stage_skips_it_where_all_training_images_are_normal(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs()
    for folder in inputs.values():
        table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
        table.loc[:11, "label"] = "normal"
        table.to_csv(folder / "manifest.csv", index=False)
    config = detect.DetectConfig(
        detector="cycle-healthy", anomaly=BUDGET, classes=("normal", "disease"), positive=("disease",),
        normal=("normal",), fold=0, gan_seed=None, seed=1, device="cpu", precision="float32",
    )  # fmt: skip
    skipped, told = tmp_path / "skipped", tmp_path / "told"
    skipped.mkdir()
    record = detect.run(config, inputs, skipped)
    assert record.figures == {"fits": 0} and pd.read_csv(skipped / "anomaly.csv").empty
    assert record.notes[0].startswith("cycle-healthy: skipped. Fold 0: there is no training image")
    resplit(inputs, ["train"] * 8 + ["unlabelled"] * 4 + ["val"] * 6 + ["test"] * 6)
    told.mkdir()
    record = detect.run(config, inputs, told)
    assert record.figures["mixed_images"] == 12 and record.figures["train_images"] == 8
