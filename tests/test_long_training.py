"""Small data and long training: adaptive augmentation, several processes, resume."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import (
    BATCH,
    config,
    in_place_of_sngan,
    steps,
    tensors,
    training_of,
)

from pipeline.adversarial import fit
from pipeline.adversarial.adaptation import ADA, AdaState
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.log import load_resume, save_resume
from pipeline.adversarial.loop import GanTraining
from pipeline.adversarial.process_group import ONE_PROCESS, ProcessGroup, launch, require_devices
from pipeline.config.experiment import Experiment
from pipeline.core.errors import ConfigError, NonFiniteLoss

MakeInputs = Callable[..., dict[str, Path]]


# --- adaptive augmentation


def test_the_probability_follows_the_sign_of_real_logits_by_worked_numbers() -> None:
    """Target 0.6, 8 images a step, 128 images from 0 to 1: every four steps p moves by 4 * 8 / 128 = 0.25."""
    training = training_of(config(ada={"target": 0.6, "num_images": 128}))
    (schedule,) = training.recipe.schedules
    signs = [1, 1, 1, 0] + [1, 1, 1, 1] + [0, 1, 0.5, 0.5] + [-1] * 4 + [-1] * 4 + [1] * 20
    expected = [(0.75, 0.25), (1, 0.5), (0.5, 0.25), (-1, 0), (-1, 0), (1, 0.25), (1, 0.5), (1, 0.75), (1, 1), (1, 1)]
    seen = []
    for step in range(len(signs) + 1):
        training.step = step
        schedule(training)
        if step and step % 4 == 0:
            figures = training.figures
            seen.append((float(figures["overfitting_estimate"]), float(figures["ada_probability"])))
            assert float(training.context.augment.probability) == seen[-1][1]  # type: ignore[arg-type]
        training.figures["real_sign"] = torch.tensor(float(signs[min(step, len(signs) - 1)]))
    assert seen == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_ada_works_with_every_family_that_has_a_discriminator_and_resumes_exactly(name: str) -> None:
    gan = config(name, ada={"num_images": 1000})
    if FAMILIES[name].note and not any("discriminator" in net for net in training_of(config(name)).context.nets):
        with pytest.raises(ConfigError, match=f"{name} has no discriminator: leave out gan.ada"):
            training_of(gan)
        return
    whole, first, second = (training_of(gan) for _ in range(3))
    for training in (whole, first):
        training.context.states[ADA].probability.fill_(0.5)  # type: ignore[operator, union-attr]
    steps(whole, 5)
    moved = abs(float(whole.figures["ada_probability"]) - 0.5)
    assert moved == pytest.approx(4 * whole.images_per_step / 1000)
    assert -1 <= float(whole.figures["overfitting_estimate"]) <= 1
    steps(first, 2)  # two of four signs are in
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    steps(second, 1)
    second.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    state = second.context.states[ADA]
    assert isinstance(state, AdaState) and second.context.augment.probability is state.probability
    torch.manual_seed(99)
    steps(second, 3)
    one, two = tensors(whole.state_dict()), tensors(second.state_dict())
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


# --- several processes


def together(group: ProcessGroup, folder: Path) -> str:
    """Three steps, the same after an interruption, and what happens when one process gets a NaN, in result.pt."""
    torch.set_num_threads(1)
    with in_place_of_sngan(spectral=True):
        gan = config(ada={"target": -0.9, "num_images": 100})
        whole, first, second = (training_of(gan, group) for _ in range(3))
        steps(whole, 3)
        steps(first, 1)
        if group.leads:
            save_resume(folder / "resume.pt", first)
        if group.average is not None:
            group.average(torch.zeros(1))  # none reads before the leading one has written
        load_resume(folder / "resume.pt", second)
        steps(second, 2)
        if group.leads:
            torch.save({"whole": whole.state_dict(), "resumed": second.state_dict()}, folder / "result.pt")
        if group.rank == group.world_size - 1:
            with torch.no_grad():
                next(whole.context.nets["generator"].parameters()).fill_(float("nan"))
        try:
            steps(whole, 1)
        except NonFiniteLoss as error:
            return str(error)
    raise AssertionError("a NaN went unnoticed")


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """With spectral norm, R1, augmentation, adaptation and a remembered mean; without batch norm (see the page)."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = together(ONE_PROCESS, tmp_path / "one")
    two = launch("cpu", 2, together, tmp_path / "two")
    assert "term 'logistic' became nan" in one and one == two
    results = [torch.load(tmp_path / name / "result.pt", weights_only=True) for name in ("one", "two")]
    assert [result["whole"]["num_images"] for result in results] == [3 * BATCH, 3 * BATCH]
    expected, found = (tensors(result["whole"]) for result in results)
    assert expected.keys() == found.keys()
    start = tensors(training_of_batchless().state_dict())
    moved = [key for key in expected if key.startswith(".nets") and not torch.equal(start[key], expected[key])]
    assert len(moved) > 10
    for key in expected:
        if not key.startswith(".stepper"):
            torch.testing.assert_close(found[key], expected[key], atol=1e-5, rtol=1e-4, msg=key)
    for result in results:
        whole, resumed = tensors(result["whole"]), tensors(result["resumed"])
        assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []


def training_of_batchless() -> GanTraining:
    with in_place_of_sngan(spectral=True):
        return training_of(config(ada={"target": -0.9, "num_images": 100}))


def fit_config(**changes: Any) -> fit.FitConfig:
    return fit.FitConfig(
        gan=config(ada={}), classes=("normal", "disease"), positive=("disease",), fold=0, gan_seed=0, seed=3,
        device="cpu", precision="float32", deterministic=False, **changes,
    )  # fmt: skip


@pytest.fixture
def forked(ready_children: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are forked from a server that has the libraries; what they are given is pickled all the same."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    def fabric(strategy: str, **others: Any) -> Fabric:
        assert strategy == "ddp_spawn"
        return Fabric(strategy=DDPStrategy(start_method="forkserver"), **others)

    monkeypatch.setattr("lightning_fabric.Fabric", fabric)


@pytest.mark.usefixtures("forked")
def test_a_stage_on_two_processes_leaves_the_usual_files(
    tmp_path: Path, noise_inputs: MakeInputs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="radaug")
    inputs = noise_inputs()
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    alone = fit.run(fit_config(), inputs, one)
    caplog.clear()
    record = fit.run(fit_config(devices=2), inputs, two)
    assert record.figures.keys() == alone.figures.keys() and record.figures["num_images"] == 64
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    rows = [json.loads(line) for line in (two / "stats.jsonl").read_text().splitlines()]
    assert [row["num_images"] for row in rows] == list(range(8, 65, 8))
    assert {"ada_probability", "overfitting_estimate", "discriminator_loss"} <= rows[-1].keys()
    assert sum("64 of 64 images" in message for message in caplog.messages) == 1  # one process logs, and here


def wrong(group: ProcessGroup) -> None:
    raise ConfigError(f"wrong in {group.world_size} processes")


@pytest.mark.slow
def test_an_error_of_the_users_making_comes_back_as_it_is() -> None:
    with pytest.raises(ConfigError, match=r"^wrong in 2 processes$"):
        launch("cpu", 2, wrong)


def test_devices_must_be_there_and_divide_the_batch() -> None:
    require_devices("cpu", 64)
    with pytest.raises(ConfigError, match=r"compute\.devices: 1000 were asked for, but this machine has \d+ of kind"):
        require_devices("cuda", 1000)
    values = {
        "name": "x", "data": {"source": {"kind": "phantom"}, "classes": ["a", "b"], "positive": ["b"]},
        "gan": {"family": "sngan", "batch_size": 12, "accumulate": 2},
    }  # fmt: skip
    Experiment.model_validate(values | {"compute": {"devices": 3}})
    with pytest.raises(ValueError, match=r"compute\.devices \(8\) must divide gan\.batch_size \(12\)"):
        Experiment.model_validate(values | {"compute": {"devices": 4}})
