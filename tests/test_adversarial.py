"""The adversarial loop: against a plain loop, exact resume, who moves, what stops it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.utils import parametrize

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.fit import FitConfig, run, start
from pipeline.adversarial.log import RESUME, save_resume
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.pictures import save_film_strip, save_grid
from pipeline.adversarial.weights import load_net
from pipeline.config.gan import WatchConfig
from pipeline.core.errors import DataError, NonFiniteLoss
from pipeline.core.files import digest_tree
from pipeline.core.layout import TIMED_LOG
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.nets.conditions import condition_of

CLASSES = ("normal", "disease")
MakeInputs = Callable[..., dict[str, Path]]


def fit_config(**changes: object) -> FitConfig:
    gan = SnganConfig(
        num_images=64, batch_size=8, generator_width=4, discriminator_width=4, latent_dim=6, embedding_dim=4,
        snapshots=2, checkpoints=4,
    ).model_copy(update=changes)  # fmt: skip
    return FitConfig(
        gan=gan,
        classes=CLASSES,
        positive=("disease",),
        fold=0,
        gan_seed=0,
        seed=3,
        device="cpu",
        precision="float32",
        deterministic=False,
    )


def training_of(inputs: dict[str, Path], config: FitConfig) -> GanTraining:
    dataset = open_dataset(inputs["prepare"])
    return start(config, dataset, np.arange(12))[0]


def weights(training: GanTraining) -> dict[str, torch.Tensor]:
    state = training.state_dict()
    nets = {f"{net}.{key}": value for net, values in state["nets"].items() for key, value in values.items()}
    return {key: value.clone() for key, value in (nets | state["ema"]["nets"]["generator"]).items()}


@pytest.mark.parametrize("shape", [(12, 12), (8, 9, 10)])
def test_loop_equals_a_plain_hinge_loop(noise_inputs: MakeInputs, shape: tuple[int, ...]) -> None:
    """Two steps of the recipe against the textbook loop, written out with nothing of the loop's."""
    config = fit_config()
    inputs = noise_inputs(shape)
    ours, plain = training_of(inputs, config), training_of(inputs, config)
    train(ours, 16, lambda _: None)

    nets, draws, augment, stream = (
        plain.context.nets,
        plain.context.draws,
        plain.context.augment,
        plain.streams["labelled"],
    )
    generator, discriminator = nets["generator"], nets["discriminator"]
    optim_d = torch.optim.Adam(discriminator.parameters(), lr=config.gan.discriminator_lr, betas=(0.0, 0.9))
    optim_g = torch.optim.Adam(generator.parameters(), lr=config.gan.generator_lr, betas=(0.0, 0.9))
    for _ in range(2):
        batch = stream.next()
        condition = condition_of(batch.label)
        with parametrize.cached():
            real = discriminator(augment(batch.images, draws), condition).logits
            fake = generator(draws.randn((8, 6)), condition).detach()
            loss_d = (1 - real).clamp(min=0).mean()
            loss_d = loss_d + (1 + discriminator(augment(fake, draws), condition).logits).clamp(min=0).mean()
            optim_d.zero_grad()
            loss_d.backward()
        optim_d.step()
        batch = stream.next()
        condition = condition_of(batch.label)
        with parametrize.cached():
            fake = generator(draws.randn((8, 6)), condition)
            loss_g = -discriminator(augment(fake, draws), condition).logits.mean()
            optim_g.zero_grad()
            loss_g.backward()
        optim_g.step()

    assert float(ours.figures["discriminator"]) == pytest.approx(float(loss_d.detach()), abs=1e-5)
    assert float(ours.figures["generator"]) == pytest.approx(float(loss_g.detach()), abs=1e-5)
    for name in nets:
        for mine, theirs in zip(ours.context.nets[name].parameters(), nets[name].parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


def test_only_the_moving_player_moves_but_frozen_buffers_do(noise_inputs: MakeInputs) -> None:
    training = training_of(noise_inputs(), fit_config())
    before = weights(training)
    player = training.recipe.players[0]
    training.stepper.move(player, [training.turn(player)], 1, 0)
    after = weights(training)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("discriminator.") for name in moved)
    assert not any(name.startswith("generator.") and "running" not in name and "batches" not in name for name in moved)
    assert any(name.startswith("generator.") and "running" in name for name in moved)


def test_a_discriminators_move_gets_fakes_without_a_graph(noise_inputs: MakeInputs) -> None:
    training = training_of(noise_inputs(), fit_config())
    for player, expected in zip(training.recipe.players, (False, True), strict=True):
        assert training.turn(player).fake.requires_grad is expected


def test_ema_follows_its_formula(noise_inputs: MakeInputs) -> None:
    training = training_of(noise_inputs(), fit_config())
    mean = training.ema.nets["generator"].start.weight.clone()
    for step in range(3):
        train(training, 8 * (step + 1), lambda _: None)
        decay = min(0.998, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * training.context.nets["generator"].start.weight.detach()
    torch.testing.assert_close(training.ema.nets["generator"].start.weight, mean)


@pytest.mark.parametrize("shape", [(12, 12), (8, 9, 10)])
def test_interrupted_and_uninterrupted_training_end_in_equal_weights(
    tmp_path: Path, noise_inputs: MakeInputs, shape: tuple[int, ...]
) -> None:
    inputs = noise_inputs(shape)
    config = fit_config()
    whole = training_of(inputs, config)
    train(whole, 64, lambda _: None)
    first = training_of(inputs, config)
    train(first, 24, lambda _: None)
    save_resume(tmp_path / RESUME, first)
    second = training_of(inputs, config)
    second.load_state_dict(torch.load(tmp_path / RESUME, weights_only=True))
    assert second.num_images == 24
    train(second, 64, lambda _: None)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(second)[name]), name


class Killed(BaseException):
    pass


def test_a_killed_stage_goes_on_and_leaves_the_same_files(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = noise_inputs()
    config = fit_config()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    run(config, inputs, whole)

    from pipeline.adversarial import fit

    steps: list[int] = []
    original = fit.Log.__call__

    def dies(log: fit.Log, training: GanTraining) -> None:
        original(log, training)
        steps.append(training.num_images)
        if len(steps) == 5:
            raise Killed

    monkeypatch.setattr(fit.Log, "__call__", dies)
    with pytest.raises(Killed):
        run(config, inputs, killed)
    assert (killed / RESUME).is_file() and not (killed / "generator.safetensors").exists()
    with (killed / TIMED_LOG).open("a") as handle:
        handle.write('{"num_images": 48, "half a li')
    monkeypatch.setattr(fit.Log, "__call__", original)
    rows = [json.loads(line) for line in (killed / TIMED_LOG).read_text().splitlines()[:-1]]
    earlier = json.dumps({**rows[-1], "seconds": 1000.5})
    (killed / TIMED_LOG).write_text(
        "\n".join([json.dumps(row) for row in rows[:-1]] + [earlier, '{"num_images": 48, "ha'])
    )
    assert run(config, inputs, killed).wall_s == 1000.5, "the seconds of the killed process count"
    last = json.loads((killed / TIMED_LOG).read_text().splitlines()[-1])
    assert last["seconds"] >= 1000.5, "to a tenth of a second: 32 images may take less"
    assert not (killed / RESUME).exists()
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(killed) for path in killed.rglob("*") if path.is_file())
    for name in names:
        if name.name != TIMED_LOG:
            assert (whole / name).read_bytes() == (killed / name).read_bytes(), name


class Ended(BaseException):
    pass


def test_sigterm_leaves_a_checkpoint_of_the_last_step_and_the_same_files_at_the_end(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes in the third step, of 8 images; a checkpoint is due at 16 and at 32."""
    inputs, config = noise_inputs(), fit_config()
    whole, asked = tmp_path / "whole", tmp_path / "asked"
    whole.mkdir()
    asked.mkdir()
    run(config, inputs, whole)

    from pipeline.adversarial import fit

    original = fit.Log.__call__

    def hit(log: fit.Log, training: GanTraining) -> None:
        if training.num_images == 24:
            signal.raise_signal(signal.SIGTERM)
        original(log, training)

    def handler(number: int, frame: object) -> None:
        raise Ended

    monkeypatch.setattr(fit.Log, "__call__", hit)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(Ended):
            run(config, inputs, asked)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert torch.load(asked / RESUME, weights_only=True)["num_images"] == 24
    monkeypatch.setattr(fit.Log, "__call__", original)
    run(config, inputs, asked)
    skip = frozenset({TIMED_LOG})
    assert digest_tree(asked, skip=skip) == digest_tree(whole, skip=skip)


def test_a_broken_resume_file_means_a_new_beginning(tmp_path: Path, noise_inputs: MakeInputs) -> None:
    inputs = noise_inputs()
    out = tmp_path / "out"
    out.mkdir()
    (out / RESUME).write_bytes(b"half a file")
    assert run(fit_config(), inputs, out).figures["num_images"] == 64


def test_saved_nets_come_back_with_spectral_norm_folded_in(tmp_path: Path, noise_inputs: MakeInputs) -> None:
    inputs = noise_inputs()
    out = tmp_path / "out"
    out.mkdir()
    run(fit_config(), inputs, out)
    loaded, description = load_net(out, "discriminator")
    assert description["classes"] == list(CLASSES)
    assert not any("parametrizations" in name for name in loaded.state_dict())
    spectral = [
        torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2) for m in loaded.trunk.layers if hasattr(m, "weight")
    ]
    assert all(0.3 < float(norm) < 1.7 for norm in spectral)  # power iteration: near 1, not exact
    (out / "discriminator.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="does not match"):
        load_net(out, "discriminator")


def test_a_non_finite_loss_stops_before_any_weight_moves(noise_inputs: MakeInputs) -> None:
    training = training_of(noise_inputs(), fit_config())
    train(training, 16, lambda _: None)
    with torch.no_grad():
        training.context.nets["discriminator"].score.bias.fill_(float("nan"))
    before = {name: value for name, value in weights(training).items() if "bias" not in name}
    with pytest.raises(NonFiniteLoss, match="no weight was changed"):
        train(training, 24, lambda _: None)
    unmoved = [name for name, value in before.items() if name.endswith(("weight", "original"))]
    assert unmoved and all(torch.equal(before[name], weights(training)[name]) for name in unmoved)


def test_the_gan_sees_only_the_training_images_of_its_fold(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = noise_inputs()
    seen: list[int] = []
    original = DataSet.labels

    def spy(self: DataSet, rows: np.ndarray, classes: tuple[str, ...]) -> torch.Tensor:
        seen.extend(rows.tolist())
        return original(self, rows, classes)

    monkeypatch.setattr(DataSet, "labels", spy)
    out = tmp_path / "out"
    out.mkdir()
    run(fit_config(watch=WatchConfig(checks=0)), inputs, out)  # what the watch looks at: test_watch.py
    assert sorted(seen) == list(range(12))


def test_every_family_names_its_source_and_dimensions() -> None:
    for name, family in FAMILIES.items():
        assert family.name == name and family.source and set(family.dimensions) <= {2, 3}


def test_a_film_strip_names_its_rows_beside_them_and_its_frames_above(tmp_path: Path) -> None:
    frames = [tmp_path / f"{count}.png" for count in (8, 16)]
    for frame in frames:
        save_grid(frame, np.zeros((6, 1, 56, 56)), 3)
    save_film_strip(tmp_path / "strip.png", frames, [8, 16], ("cyst", "metastasis"))
    with Image.open(tmp_path / "strip.png") as strip, Image.open(frames[0]) as grid:
        margin, height = strip.width - grid.width, strip.height // 2
        heading = height - grid.height - 2  # a gap of 2 below each frame
        pixels = np.asarray(strip)
    for frame in range(2):
        body = pixels[frame * height + heading :][: grid.height, :margin]
        rows = np.split(body, 2)
        assert all((row[16:40] < 100).any() and (row[:8] == 255).all() for row in rows), "a name halfway up each row"
        assert (pixels[frame * height :][:heading, margin:] < 100).any(), "the images shown so far"
