"""Every arm of the comparison: equal steps, who sees what, and what each does with it, in 2D and 3D."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arm_stage import (
    EVERY_ARM,
    POOL,
    SLOW_ARM,
    STEPPED,
    TOLD,
    MakeInputs,
    fitted_arms,
    material_of,
    settings,
    stage,
    with_generator,
    with_pool,
)
from noise_data import write_noise

from pipeline.config.arms import ARMS, REFERENCE_ARM, part_name
from pipeline.core.errors import DataError
from pipeline.downstream import train
from pipeline.downstream.material import Material
from pipeline.downstream.regimens import regimen_of


@pytest.fixture
def inputs(noise_inputs: MakeInputs, tmp_path: Path) -> dict[str, Path]:
    return with_generator(with_pool(noise_inputs(num=48)), tmp_path)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What every arm says that was fitted on such inputs."""
    root = tmp_path_factory.mktemp("fitted")
    inputs = with_generator(with_pool(write_noise(root / "inputs", num=48)), root)
    return fitted_arms(EVERY_ARM, inputs, root / "parts")


def of_arms(table: pd.DataFrame, arms: tuple[str, ...]) -> pd.DataFrame:
    """The rows of `arms`, in the order of `arms`."""
    return pd.concat([table[table["arm"] == arm] for arm in arms], ignore_index=True)


def assert_every_arm_says_something(table: pd.DataFrame) -> None:
    assert table.groupby(["arm", "split"]).size().to_dict() == dict.fromkeys(
        itertools.product(EVERY_ARM, ("val", "test")), 12
    )
    scores = table[["score_normal", "score_disease"]].astype(float)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)


def test_every_arm_fits_in_2d(first: pd.DataFrame) -> None:
    assert_every_arm_says_something(first)


def test_every_arm_fits_in_3d(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = with_generator(with_pool(noise_inputs((8, 8, 8), num=48)), tmp_path)
    assert_every_arm_says_something(fitted_arms(EVERY_ARM, inputs, tmp_path / "parts"))


def test_steps_are_equal_and_only_a_pretraining_takes_them_twice(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = settings(steps=25)
    material = material_of(inputs, tmp_path / "parts", config)
    for arm in STEPPED:
        name = f"{arm}@1" if ARMS[arm].ratio else arm
        regimen = regimen_of(name, config, material)
        twice = arm.endswith("-pretrained")
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
                if facts.sees("unlabelled") and not share.labelled:
                    assert seen == pool and share.soft is None, arm
                    continue
                if not share.labelled or (facts.sees("target_judged") and share.soft is not None):
                    assert seen == set(material.target_rows) < pool, arm
                    continue
                assert seen == train_rows or (facts.pool and not facts.generator and seen == pool), arm
                assert (share.soft is not None) == (seen == pool), arm
            else:
                assert facts.generator and share.dataset is material.generated, arm


def test_held_out_images_change_no_classifier(inputs: dict[str, Path], first: pd.DataFrame, tmp_path: Path) -> None:
    """Other test images, with other labels: what is said of val stays the same to the last digit."""
    arms = tuple(arm for arm in EVERY_ARM if arm != SLOW_ARM)
    first = of_arms(first, arms)
    rows = material_of(inputs, tmp_path / "one").rows("test")
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


POOL_ARMS = tuple(
    name
    for name, facts in ARMS.items()
    if name in EVERY_ARM and (facts.pool or facts.target or facts.look or facts.sees("target"))
)


@pytest.mark.parametrize("labels", ["swapped", "", "something else"])
def test_labels_of_pool_images_are_never_read(
    inputs: dict[str, Path], first: pd.DataFrame, tmp_path: Path, labels: str
) -> None:
    rows = material_of(inputs, tmp_path / "one").rows("unlabelled")
    manifest = pd.read_csv(inputs["prepare"] / "manifest.csv")
    before = manifest.loc[rows, "label"]
    assert before.nunique() == 2
    manifest.loc[rows, "label"] = (
        before.map({"normal": "disease", "disease": "normal"}) if labels == "swapped" else labels
    )
    manifest.to_csv(inputs["prepare"] / "manifest.csv", index=False)
    pd.testing.assert_frame_equal(of_arms(first, POOL_ARMS), fitted_arms(POOL_ARMS, inputs, tmp_path / "two"))


def test_pool_images_do_reach_the_pools_arms(inputs: dict[str, Path], first: pd.DataFrame, tmp_path: Path) -> None:
    """The pool's own arms change with the pool's images (else the test above says nothing); the others do not."""
    adapting = tuple(f"{REFERENCE_ARM}+{name}" for name in ("pseudolabels", "coral", "dann", "matched", "fourier"))
    arms = (*adapting, "simclr-features", "autoencoder-features", REFERENCE_ARM)
    first = of_arms(first, arms)
    rows = material_of(inputs, tmp_path / "one").rows("unlabelled")
    images = np.load(inputs["prepare"] / "images.npy")
    images[rows] = 255 - images[rows]
    np.save(inputs["prepare"] / "images.npy", images)
    second = fitted_arms(arms, inputs, tmp_path / "two")
    changed = (first["score_disease"] != second["score_disease"]).groupby(first["arm"]).mean()
    assert changed[REFERENCE_ARM] == 0
    assert (changed.drop(REFERENCE_ARM) > 0.9).all()


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


def test_parts_that_other_processes_made_leave_what_the_stage_makes_alone(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    config = stage((f"{REFERENCE_ARM}+synthetic@1", REFERENCE_ARM)).model_copy(update={"gan_seed": 0})
    whole, in_parts = tmp_path / "whole", tmp_path / "in-parts"
    for place in (whole, in_parts):
        place.mkdir()
    seeds = range(config.classifier.seeds)
    fits = [part_name(f"{REFERENCE_ARM}+synthetic@1", seed) for seed in seeds] + [part_name(REFERENCE_ARM, 0)]
    record = train.run(config, inputs, whole)
    for part in reversed(fits):
        train.run_part(config, inputs, in_parts, part)
    made = {path: path.stat().st_mtime_ns for path in (in_parts / "parts").glob("*.csv")}
    train.run_part(config, inputs, in_parts, fits[0])
    assert {path: path.stat().st_mtime_ns for path in made} == made  # it is not made twice
    assert train.run(config, inputs, in_parts).figures.keys() == record.figures.keys()
    assert (in_parts / train.PREDICTIONS).read_bytes() == (whole / train.PREDICTIONS).read_bytes()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", "other shape"])
def test_an_ensembles_array_that_is_not_whole_is_made_again(
    inputs: dict[str, Path], tmp_path: Path, content: bytes | str
) -> None:
    material = material_of(inputs, tmp_path, planted=False)
    rows = material.rows("val")
    right = material.judged("val", material.dataset, rows)
    path = tmp_path / "ensemble-val.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, scores=right[:-1])
    np.testing.assert_array_equal(
        material_of(inputs, tmp_path, planted=False).judged("val", material.dataset, rows), right
    )
