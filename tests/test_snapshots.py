"""What the GAN of normal patients leaves of its training while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.adversarial import fit
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.fit import FitConfig, run, start
from pipeline.adversarial.log import RESUME
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.snapshots import snapshots_of
from pipeline.adversarial.weights import folded, load_net
from pipeline.core.layout import TIMED_LOG
from pipeline.data.batches.dataset import open_dataset

MakeInputs = Callable[..., dict[str, Path]]


def config(*, normals_only: bool = True) -> FitConfig:
    gan = SnganConfig(
        num_images=64, batch_size=8, generator_width=4, discriminator_width=4, latent_dim=6, embedding_dim=4,
        snapshots=2, checkpoints=4,
    )  # fmt: skip
    return FitConfig(
        gan=gan, classes=("normal",), positive=(), fold=0, gan_seed=0, seed=3, device="cpu", precision="float32",
        deterministic=False, normals_only=normals_only,
    )  # fmt: skip


def stored(place: Path, net: str) -> dict[str, Tensor]:
    return load_net(place, net)[0].state_dict()


def test_a_snapshot_holds_the_nets_of_a_training_that_ended_there(tmp_path: Path, noise_inputs: MakeInputs) -> None:
    inputs = noise_inputs()
    run(config(), inputs, tmp_path)
    assert [int(place.name) for place in snapshots_of(tmp_path)] == [8, 16, 32, 48]
    shorter = start(config(), open_dataset(inputs["prepare"]), np.arange(0, 12, 2))[0]  # the six normal images
    train(shorter, 16, lambda _: None)
    place = snapshots_of(tmp_path)[1]
    for name, net in (("discriminator", shorter.context.nets), ("generator", shorter.ema.nets)):
        found = stored(place, name)
        state = folded(net[name]).state_dict()
        expected = {key: value for key, value in state.items() if not key.startswith("norms") or "weight" in key}
        assert expected and all(torch.equal(found[key], value) for key, value in expected.items()), name
    means = [value for key, value in stored(place, "generator").items() if "running_mean" in key]
    assert means and all(value.abs().max() > 0 for value in means)  # statistics of the averaged weights' own


def test_snapshots_change_nothing_of_the_training(tmp_path: Path, noise_inputs: MakeInputs) -> None:
    """The same patients without snapshots end in the same weights."""
    inputs = noise_inputs()
    for folder in inputs.values():  # all are normal, so that `normals_only` leaves nobody out
        table = folder / "manifest.csv"
        table.write_text(table.read_text().replace("disease", "normal"))
    ends = []
    for wanted in (True, False):
        out = tmp_path / str(wanted)
        out.mkdir()
        run(config(normals_only=wanted), inputs, out)
        assert bool(snapshots_of(out)) == wanted
        ends.append(stored(out, "generator") | stored(out, "discriminator"))
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


class Killed(BaseException):
    pass


def test_a_killed_stage_leaves_the_same_snapshots(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = noise_inputs()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    run(config(), inputs, whole)
    original = fit.Log.__call__

    def dies(log: fit.Log, training: GanTraining) -> None:
        original(log, training)
        if training.num_images == 56:
            raise Killed

    monkeypatch.setattr(fit.Log, "__call__", dies)
    with pytest.raises(Killed):
        run(config(), inputs, killed)
    (killed / "snapshots" / "000000056").mkdir()  # of images that the resumed training has not seen
    (killed / "snapshots" / "000000056" / "model.json").write_text("{")
    assert torch.load(killed / RESUME, weights_only=True)["num_images"] == 48
    monkeypatch.setattr(fit.Log, "__call__", original)
    run(config(), inputs, killed)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(killed) for path in killed.rglob("*") if path.is_file())
    for name in names:
        assert name.name == TIMED_LOG or (whole / name).read_bytes() == (killed / name).read_bytes(), name
