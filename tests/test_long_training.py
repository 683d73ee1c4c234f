"""Small data and long training: adaptive augmentation, several processes, accumulation, checkpointing, resume."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from pipeline.adversarial import fit
from pipeline.adversarial.adaptation import ADA, AdaState
from pipeline.adversarial.families import FAMILIES, sngan
from pipeline.adversarial.family import Family
from pipeline.adversarial.fit import assemble
from pipeline.adversarial.log import load_resume, save_resume
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.penalties import r1_penalty
from pipeline.adversarial.process_group import ONE_PROCESS, ProcessGroup, launch, require_devices
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import logistic_discriminator, non_saturating_generator
from pipeline.adversarial.turns import NoiseTurn
from pipeline.config.experiment import Experiment
from pipeline.config.families import validate_gan
from pipeline.config.gan import GanConfig
from pipeline.core.compute import Hardware
from pipeline.core.errors import ConfigError, NonFiniteLoss
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages, Stream
from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.discriminators import ProjectionDiscriminator
from pipeline.nets.sizes import ImageShape

SIDE, CLASSES, BATCH, LATENT = 12, 3, 8, 6
NO_AUGMENT = {"brightness": 0, "contrast": 0, "shift": 0, "rotate_degrees": 0, "scale": 0, "noise": 0, "cutout": 0}
MakeInputs = Callable[..., dict[str, Path]]


def config(name: str = "sngan", **changes: Any) -> GanConfig:
    values = {
        "family": name, "num_images": 64, "batch_size": BATCH, "latent_dim": LATENT, "embedding_dim": 4,
        "generator_width": 4, "discriminator_width": 4, "snapshots": 2, "checkpoints": 4,
    }  # fmt: skip
    return validate_gan(values | changes)


def stored(num: int = 12) -> StoredImages:
    random = torch.Generator().manual_seed(1)
    return StoredImages(
        stored=torch.randint(0, 255, (num, 1, SIDE, SIDE), generator=random, dtype=torch.uint8),
        label=torch.arange(num) % CLASSES,
        scaling=Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"),
        masks=torch.randint(0, 2, (num, 1, SIDE, SIDE), generator=random, dtype=torch.uint8),
    )


def training_of(gan: GanConfig, group: ProcessGroup = ONE_PROCESS) -> GanTraining:
    shape = ImageShape((SIDE, SIDE), 1, CLASSES, positive=(2,))
    return assemble(gan, stored(), shape, Hardware("cpu", "float32"), seed=3, group=group)


def steps(training: GanTraining, num: int) -> None:
    train(training, training.num_images + num * training.images_per_step, lambda _: None)


def tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors in nested dicts and lists, by name."""
    if isinstance(value, Tensor):
        return {name: value.detach().clone()}
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {key: tensor for part, inner in parts for key, tensor in tensors(inner, f"{name}.{part}").items()}


class DenseGenerator(nn.Module):
    """Without batch norm: an image depends on its own z and class alone."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = LATENT
        self.embedding = nn.Embedding(CLASSES, 4)
        self.layers = nn.Sequential(nn.Linear(LATENT + 4, 32), nn.Tanh(), nn.Linear(32, SIDE * SIDE), nn.Tanh())

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        code = torch.cat([z, self.embedding(condition.required_label())], dim=1)
        return self.layers(code).view(-1, 1, SIDE, SIDE)


class PlainDiscriminator(nn.Module):
    """Without spectral norm, whose power iteration goes on at every turn."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 6, 4, 2, 1), nn.Softplus(), nn.Conv2d(6, 6, 4, 2, 1), nn.Softplus())
        self.score = nn.Linear(6 * 9, CLASSES)

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        scores = self.score(self.trunk(images).flatten(1))
        return Judgement(scores.gather(1, condition.required_label()[:, None]).squeeze(1))


class RunningMean(nn.Module):
    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))


def drift(turn: NoiseTurn) -> Tensor:
    """A small pull of the logits towards 0, which also remembers their mean, as path length does its own."""
    mean = turn.context.states["mean"]
    assert isinstance(mean, RunningMean)
    mean.value.lerp_(turn.real_logits.detach().mean(), 0.1)
    return turn.real_logits.square().mean()


def batchless_family(spectral: bool) -> Family[sngan.SnganConfig]:
    """A family in which no image sees another: with lazy R1, and spectral norm if wanted."""

    def nets(_: GanConfig, shape: ImageShape) -> dict[str, nn.Module]:
        judge = ProjectionDiscriminator(shape, width=4) if spectral else PlainDiscriminator()
        return {"generator": DenseGenerator(), "discriminator": judge}

    def recipe(_: GanConfig) -> Recipe:
        losses = Weighted("logistic", logistic_discriminator), Weighted("drift", drift, 0.01)
        return Recipe(
            players=(
                Player(
                    "discriminator", ("discriminator",), (*losses, Weighted("r1", r1_penalty, 2.0, every=2)),
                    OptimizerSettings(1e-3),
                ),
                Player(
                    "generator", ("generator",), (Weighted("logistic", non_saturating_generator),),
                    OptimizerSettings(1e-3),
                ),
            ),
            turn=NoiseTurn,
            states={"mean": RunningMean()},
        )  # fmt: skip

    return Family(sngan.SnganConfig, "this test", nets, recipe, conditions=("class",))


def in_place_of_sngan(spectral: bool) -> Any:
    return mock.patch.object(sngan, "FAMILY", batchless_family(spectral))


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


# --- accumulation


class Tape(Draws):
    """The same noise, row by row, however many rows are asked for at a time."""

    def __init__(self) -> None:
        super().__init__(torch.Generator())
        self.rows, self.position = torch.randn(1000, LATENT, generator=torch.Generator().manual_seed(8)), 0

    def randn(self, shape: Sequence[int]) -> Tensor:
        self.position += shape[0]
        return self.rows[self.position - shape[0] : self.position]


@pytest.mark.parametrize("parts", [2, 4])
def test_an_accumulated_move_equals_a_whole_one(parts: int) -> None:
    """Gradients of both players, with R1, and weights and figures after three steps, on the same images and noise."""
    with in_place_of_sngan(spectral=False):
        whole, accumulated = (training_of(config(accumulate=n, augment=NO_AUGMENT)) for n in (1, parts))
    for training in (whole, accumulated):
        training.context = replace(training.context, draws=Tape())
        steps(training, 3)
    assert whole.num_images == accumulated.num_images == 3 * BATCH
    for net in whole.context.nets:
        pairs = zip(whole.context.nets[net].named_parameters(), accumulated.context.nets[net].parameters(), strict=True)
        for (name, one), two in pairs:
            assert one.grad is not None and two.grad is not None and one.grad.abs().sum() > 0
            torch.testing.assert_close(two.grad, one.grad, atol=1e-6, rtol=1e-3, msg=f"{net}.{name}")
            torch.testing.assert_close(two, one, atol=2e-5, rtol=1e-4, msg=f"{net}.{name}")
    assert whole.figures.keys() == accumulated.figures.keys() >= {"real_logits", "discriminator", "generator"}
    for name, figure in whole.figures.items():
        torch.testing.assert_close(accumulated.figures[name], figure, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_every_move_sees_a_whole_batch_in_parts(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = Stream.next

    def counted(stream: Stream) -> Any:
        batch = original(stream)
        sizes.append(len(batch.label))
        return batch

    monkeypatch.setattr(Stream, "next", counted)
    training = training_of(config(accumulate=parts))
    steps(training, 3)
    assert sizes == [BATCH // parts] * (3 * 2 * parts)
    assert training.num_images == 3 * BATCH


# --- checkpointing


def gradients(name: str, checkpointing: bool) -> tuple[dict[str, Tensor], int, bool]:
    """Every player's gradients in its first move, bytes kept for the way back, and whether any module listens."""
    training = training_of(config(name, checkpointing=checkpointing))
    found: dict[str, Tensor] = {}
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    for player in training.recipe.players:
        weights = training.stepper.weights(player)
        training.stepper.optimizers[player.name] = torch.optim.SGD(weights, lr=0.0)
        turn = training.turn(player)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            training.stepper.move(player, [turn], 1, 0)
        for net in player.trains:
            for key, weight in training.context.nets[net].named_parameters():
                if weight.grad is not None:
                    found[f"{player.name}.{net}.{key}"] = weight.grad.clone()
    listens = any(
        hasattr(module, "checkpointing") for net in training.context.nets.values() for module in net.modules()
    )
    return found, sum(kept), listens


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_changes_no_gradient_and_keeps_less(name: str) -> None:
    (plain, much, listens), (recomputed, little, _) = (gradients(name, wanted) for wanted in (False, True))
    assert plain.keys() == recomputed.keys() and len(plain) > 4
    for key, gradient in plain.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(recomputed[key], gradient, atol=1e-5 * scale + 1e-9, rtol=1e-4, msg=key)
    assert little < 0.9 * much or not listens
    assert listens or name == "gan"
