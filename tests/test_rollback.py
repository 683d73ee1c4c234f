"""What the collapse watch does: nothing to a healthy training; otherwise it warns, goes back exactly, and stops."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.adversarial import fit
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.fit import FitConfig, run
from pipeline.adversarial.loop import GanTraining
from pipeline.adversarial.process_group import ProcessGroup
from pipeline.adversarial.rollback import CHECKS, GOOD, Watch
from pipeline.adversarial.watch import Probe, Reading
from pipeline.config.gan import WatchConfig
from pipeline.core.errors import NonFiniteLoss
from pipeline.core.records import Record
from pipeline.data.batches.dataset import DataSet, open_dataset

MakeInputs = Callable[..., dict[str, Path]]
GOOD_READING = Reading(0.1, 0.8, 0.0, 0.2)
BAD_READING = Reading(0.95, 0.8, 0.0, 0.2)


def watching(**changes: Any) -> WatchConfig:
    """As many checks as are asked for, however short the training."""
    return WatchConfig(**{"share": 1000, **changes})


def config_of(watch: WatchConfig, **changes: object) -> FitConfig:
    gan = SnganConfig(
        num_images=96, batch_size=8, generator_width=4, discriminator_width=4, latent_dim=6, embedding_dim=4,
        snapshots=2, checkpoints=3, watch=watch,
    ).model_copy(update=changes)  # fmt: skip
    return FitConfig(
        gan=gan, classes=("normal", "disease"), positive=("disease",), fold=0, gan_seed=1, seed=3,
        device="cpu", precision="float32", deterministic=False,
    )  # fmt: skip


def made(out: Path, watch: WatchConfig, inputs: dict[str, Path], **changes: object) -> Record:
    out.mkdir(exist_ok=True)
    return run(config_of(watch, **changes), inputs, out)


def files(root: Path) -> dict[str, bytes]:
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "stats.jsonl"}


def scripted(monkeypatch: pytest.MonkeyPatch, script: Callable[[int, int], Reading]) -> None:
    """Let the watch read `script(images shown, attempt)`."""
    attempt: list[Watch] = []
    original = Watch.__init__

    def remembers(self: Watch, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        attempt[:] = [self]

    monkeypatch.setattr(Watch, "__init__", remembers)
    monkeypatch.setattr(Probe, "read", lambda _, training: script(training.num_images, attempt[0].memory.rollbacks))


def test_watching_changes_no_weight(tmp_path: Path, noise_inputs: MakeInputs) -> None:
    inputs = noise_inputs()
    with_watch = made(tmp_path / "with", watching(checks=12), inputs)
    made(tmp_path / "without", WatchConfig(checks=0), inputs)
    assert len(with_watch.figures["watch"]["checks"]) == 12 and with_watch.figures["watch"]["rollbacks"] == 0
    one, other = files(tmp_path / "with"), files(tmp_path / "without")
    assert set(one) - set(other) == {CHECKS}
    same = {name for name in other if one[name] == other[name]}
    assert set(other) - same == {"model.json"}  # where the limits are written


def test_the_table_of_checks_has_a_row_for_each(tmp_path: Path, noise_inputs: MakeInputs) -> None:
    record = made(tmp_path / "out", watching(checks=4), noise_inputs())
    with (tmp_path / "out" / CHECKS).open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["num_images"] for row in rows] == ["24", "48", "72", "96"]
    assert [float(row["similarity"]) for row in rows] == [c["similarity"] for c in record.figures["watch"]["checks"]]
    assert all(row["overfitting"] == "" or -20 < float(row["overfitting"]) < 20 for row in rows)


def test_an_undertrained_generator_is_noted_but_not_called_collapsed(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, lambda *_: BAD_READING)
    record = made(tmp_path / "out", watching(checks=12), noise_inputs())
    assert record.figures["num_images"] == 96 and record.figures["watch"]["rollbacks"] == 0
    assert len(record.notes) == 1 and "no check of the collapse watch was good (similarity 0.95" in record.notes[0]


def test_in_the_first_fifth_a_bad_check_is_not_even_a_warning(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, lambda images, _: BAD_READING if images in (16, 24, 32) else GOOD_READING)
    record = made(tmp_path / "out", watching(checks=20), noise_inputs(), num_images=160)
    assert record.figures["watch"]["rollbacks"] == 0
    assert len(record.notes) == 1 and "a bad check at 32 images" in record.notes[0]


def test_one_bad_check_warns_and_says_what_to_do(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scripted(monkeypatch, lambda images, _: BAD_READING if images == 48 else GOOD_READING)
    record = made(tmp_path / "out", watching(checks=12), noise_inputs())
    said = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert len(said) == 1
    for part in ("fold 0", "seed 1", "48 images", "similarity 0.95 (at most", "goes back to 40 images", "generator_lr"):
        assert part in said[0]
    assert record.figures["watch"]["rollbacks"] == 0 and len(record.notes) == 1 and "48 images" in record.notes[0]


def test_going_back_restores_exactly_the_good_state_with_new_noise_and_half_the_rates(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, lambda images, attempt: BAD_READING if images in (48, 56) and attempt < 2 else GOOD_READING)
    states: dict[str, list[dict[str, Any]]] = {"good": [], "back": []}
    look, go_back = Watch.__call__, Watch.go_back

    def looks(self: Watch, training: GanTraining) -> None:
        look(self, training)
        if training.num_images == 40:
            states["good"].append(copy.deepcopy(training.state_dict()))

    def goes(self: Watch, training: GanTraining, why: Exception) -> bool:
        goes_on = go_back(self, training, why)
        states["back"].append(copy.deepcopy(training.state_dict()))
        return goes_on

    monkeypatch.setattr(Watch, "__call__", looks)
    monkeypatch.setattr(Watch, "go_back", goes)
    record = made(tmp_path / "out", watching(checks=12, rollbacks=2), noise_inputs())
    good, back = states["good"][0], states["back"]
    assert len(back) == 2 and record.figures["watch"]["rollbacks"] == 2 and record.figures["num_images"] == 96
    for number, state in enumerate(back, start=1):
        assert state["num_images"] == 40
        for part in ("nets", "ema", "streams", "states", "step", "figures"):
            assert_equal(state[part], good[part])
        for player, rate in (("generator", 5e-5), ("discriminator", 8e-4)):
            assert state["stepper"][player]["param_groups"][0]["lr"] == rate / 2**number
            assert_equal(state["stepper"][player]["state"], good["stepper"][player]["state"])
        assert not torch.equal(state["random"], good["random"])
    assert not torch.equal(back[0]["random"], back[1]["random"])
    assert sum("went back to its last good state, at 40 images" in note for note in record.notes) == 2
    lines = (tmp_path / "out" / "stats.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12  # those of the attempts that were taken back are gone


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_equal(mine, theirs)
    else:
        assert one == other


def test_when_all_rollbacks_are_used_the_training_ends_at_its_last_good_state(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = noise_inputs()
    made(tmp_path / "short", WatchConfig(checks=0), inputs, num_images=40)
    scripted(monkeypatch, lambda images, _: BAD_READING if images > 40 else GOOD_READING)
    record = made(tmp_path / "out", watching(checks=12, rollbacks=1), inputs)
    assert record.figures["watch"]["rollbacks"] == 1 and record.figures["watch"]["ended_early"]
    assert record.figures["num_images"] == 40
    assert "ended there" in record.notes[-1] and "40 of 96 images were shown" in record.notes[-1]
    out, short = files(tmp_path / "out"), files(tmp_path / "short")
    for name in ("generator.safetensors", "discriminator.safetensors"):
        assert out[name] == short[name]
    assert GOOD not in out and not any(int(Path(name).stem) > 40 for name in out if name.startswith("grids/"))


def test_a_bad_last_check_has_no_second_one_to_wait_for(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, lambda images, attempt: BAD_READING if images == 96 and attempt == 0 else GOOD_READING)
    record = made(tmp_path / "out", watching(checks=12), noise_inputs())
    assert record.figures["watch"]["rollbacks"] == 1 and record.figures["num_images"] == 96
    assert not record.figures["watch"]["ended_early"]


def break_discriminator(training: GanTraining) -> None:
    with torch.no_grad():
        training.context.nets["discriminator"].score.bias.fill_(float("nan"))


@pytest.mark.parametrize("seen_by_a_check", [True, False])
def test_values_that_are_not_finite_go_back_at_once(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch, seen_by_a_check: bool
) -> None:
    look, read = Watch.__call__, Probe.read

    def breaks(self: Watch, training: GanTraining) -> None:
        if training.num_images == 56 + 8 * seen_by_a_check and self.memory.rollbacks == 0:
            break_discriminator(training)
        look(self, training)

    def lenient(self: Probe, training: GanTraining) -> Reading:
        return GOOD_READING if read(self, training).finite else Reading(finite=False)

    monkeypatch.setattr(Watch, "__call__", breaks)
    monkeypatch.setattr(Probe, "read", lenient)
    record = made(tmp_path / "out", watching(checks=6), noise_inputs())
    assert record.figures["watch"]["rollbacks"] == 1 and record.figures["num_images"] == 96
    assert "not finite" in record.notes[0] and "at 48 images" in record.notes[0]


def test_without_a_good_check_a_non_finite_value_stops_the_training(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, look = noise_inputs(), Watch.__call__

    def breaks(self: Watch, training: GanTraining) -> None:
        if training.num_images == 24:
            break_discriminator(training)
        look(self, training)

    monkeypatch.setattr(Watch, "__call__", breaks)
    never_good = watching(checks=12, similarity=0.001, reached=1, twins=0.001)
    for number, (watch, words) in enumerate(
        [(never_good, "samples are not finite"), (WatchConfig(checks=0), "no weight was changed")]
    ):
        with pytest.raises(NonFiniteLoss, match=words):
            made(tmp_path / str(number), watch, inputs)


class Killed(BaseException):
    pass


def test_a_killed_training_goes_on_exactly_across_a_rollback(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 56 images on, the first attempt makes one image only, until it is taken back."""
    inputs, look, log = noise_inputs(), Watch.__call__, fit.Log.__call__
    kill_at: list[int] = []
    calls = [0]

    def collapses(self: Watch, training: GanTraining) -> None:
        calls[0] += 1
        if training.num_images >= 56 and self.memory.rollbacks == 0:
            with torch.no_grad():
                for weight in training.ema.nets["generator"].parameters():
                    weight.zero_()
        look(self, training)

    def dies(self: fit.Log, training: GanTraining) -> None:
        log(self, training)
        if kill_at and calls[0] == kill_at[0]:
            kill_at.clear()
            raise Killed

    monkeypatch.setattr(Watch, "__call__", collapses)
    monkeypatch.setattr(fit.Log, "__call__", dies)
    lenient = watching(checks=12, similarity=0.99, reached=0, twins=1, overfitting=100)
    whole = made(tmp_path / "whole", lenient, inputs)
    assert whole.figures["watch"]["rollbacks"] == 1 and "similarity 1.00" in whole.notes[0]
    assert [row["num_images"] for row in whole.figures["watch"]["checks"]] == [*range(8, 65, 8), *range(56, 97, 8)]
    for step in (5, 7, 9, 10, 13):  # good; first bad check; first, second and last steps after going back
        calls[0] = 0
        kill_at[:] = [step]
        out = tmp_path / f"killed-{step}"
        with pytest.raises(Killed):
            made(out, lenient, inputs)
        calls[0] = -100
        again = made(out, lenient, inputs)
        assert again.figures["watch"] == whole.figures["watch"] and again.notes == whole.notes
        assert_equal(files(out), files(tmp_path / "whole"))


def test_the_watch_looks_at_train_and_val_and_never_at_test(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = noise_inputs()
    read: list[list[int]] = []
    labels = DataSet.labels

    def spy(self: DataSet, rows: np.ndarray, classes: tuple[str, ...]) -> Tensor:
        read.append(sorted(rows.tolist()))
        return labels(self, rows, classes)

    monkeypatch.setattr(DataSet, "labels", spy)
    made(tmp_path / "out", WatchConfig(), inputs)
    assert read == [list(range(12)), list(range(12, 18))]  # 18 to 23 are the test images


def test_several_processes_judge_their_mean_reading(tmp_path: Path, noise_inputs: MakeInputs) -> None:
    """This one sees a collapse, the other sees none and no overfitting at all: the mean is good."""
    others = iter([torch.tensor([-0.19, 0.8, 0.0, float("nan"), 1.0])])

    def share(tensor: Tensor) -> None:
        tensor.add_(next(others)).div_(2)

    dataset = open_dataset(noise_inputs()["prepare"])
    config = config_of(watching(checks=12))
    training, _ = fit.start(config, dataset, np.arange(12))
    training.num_images = 8
    probe = object.__new__(Probe)
    probe.read = lambda _: Reading(0.99, 0.8, 0.0, 0.95)  # type: ignore[method-assign]
    watch = Watch(
        config.gan.watch,
        probe,
        tmp_path,
        name="GAN",
        total=96,
        seed=0,
        group=ProcessGroup(rank=1, world_size=2, average=share),
    )
    watch(training)
    assert watch.memory.rows[0]["finding"] == "good" and watch.memory.good_at == 8
    assert watch.memory.rows[0]["similarity"] == pytest.approx(0.4) and watch.memory.rows[0]["overfitting"] is None
    assert list(tmp_path.glob("*.pt")) == list(tmp_path.glob("*.csv")) == []  # only the leading process writes
