"""Memory runs out in a training: the same batch in more parts, said so; a GAN's goes on at its last checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from test_adversarial import fit_config
from torch import Tensor, nn

from pipeline.adversarial import fit
from pipeline.adversarial.fit import run
from pipeline.adversarial.loop import GanTraining
from pipeline.adversarial.stepping import Stepper
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware
from pipeline.core.errors import is_out_of_memory
from pipeline.core.layout import TIMED_LOG
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.supervised.batches import Mixed
from pipeline.supervised.fit import Phase, Regimen, Share
from pipeline.supervised.fit import fit as train
from pipeline.supervised.memory import divided_batches, divided_note, in_parts

MakeInputs = Callable[..., dict[str, Path]]


class Killed(BaseException):
    pass


def ask_for_too_much() -> None:
    torch.empty(2**50)


@contextmanager
def stepping(monkeypatch: pytest.MonkeyPatch, instead: Callable[[int, int], None]) -> Iterator[None]:
    """Before every move, `instead` is told how many there were, and in how many parts this one's batch is."""
    original, moves = Stepper.move, [0]

    def move(stepper: Stepper, *args: object) -> object:
        moves[0] += 1
        instead(moves[0], args[2])  # type: ignore[arg-type]
        return original(stepper, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as changed:
        changed.setattr(Stepper, "move", move)
        yield


def files(folder: Path) -> dict[str, bytes]:
    names = (path for path in folder.rglob("*") if path.is_file() and path.name != TIMED_LOG)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("fits", "parts"), [(2, 2), (4, 4)])
def test_the_training_is_that_of_the_parts_that_fit(
    fits: int, parts: int, tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    inputs = noise_inputs()
    asked = run(fit_config(accumulate=parts), inputs, empty(tmp_path / "asked"))

    def small_machine(move: int, parts: int) -> None:
        if parts < fits:
            ask_for_too_much()

    with stepping(monkeypatch, small_machine), caplog.at_level(logging.WARNING):
        found = run(fit_config(), inputs, empty(tmp_path / "found"))
    assert files(tmp_path / "found") == files(tmp_path / "asked")
    size = 8 // parts
    assert f"batches of 8 in {parts} parts of {size}. To spare the attempt: gan.accumulate: {parts}." in caplog.text
    said = f"GAN of fold 0, seed 0: memory ran out, so batches of 8 were computed in {parts} parts of {size}."
    assert found.notes == (*asked.notes, said)


def test_nothing_of_the_failed_step_is_left_and_a_killed_training_keeps_its_parts(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two moves a step, a checkpoint every second step: memory runs out in the sixth step, between its two moves."""
    inputs = noise_inputs()

    def killed(log: fit.Log, training: GanTraining) -> None:
        original(log, training)
        if training.step == 5:
            raise Killed

    original = fit.Log.__call__
    by_hand = empty(tmp_path / "by-hand")
    with monkeypatch.context() as changed:
        changed.setattr(fit.Log, "__call__", killed)
        with pytest.raises(Killed):
            run(fit_config(), inputs, by_hand)
    run(fit_config(accumulate=2), inputs, by_hand)

    def runs_out(move: int, parts: int) -> None:
        if move == 12:
            ask_for_too_much()
        if move == 15:
            raise Killed

    found = empty(tmp_path / "found")
    with stepping(monkeypatch, runs_out), pytest.raises(Killed):
        run(fit_config(), inputs, found)
    made = run(fit_config(), inputs, found)
    assert files(found) == files(by_hand)
    assert made.notes[-1] == "GAN of fold 0, seed 0: memory ran out, so batches of 8 were computed in 2 parts of 4."


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("shapes differ")])
def test_other_errors_are_not_tried_again(
    error: Exception, tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(move: int, parts: int) -> None:
        raise error

    with stepping(monkeypatch, fails), pytest.raises(type(error), match=str(error)):
        run(fit_config(), noise_inputs(), tmp_path)


def test_a_batch_that_cannot_be_divided_further_ends_with_the_error(
    tmp_path: Path, noise_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def never_fits(move: int, parts: int) -> None:
        tried.append(parts)
        ask_for_too_much()

    with stepping(monkeypatch, never_fits), pytest.raises(RuntimeError) as ended:
        run(fit_config(), noise_inputs(), tmp_path)
    assert tried == [1, 2, 4] and is_out_of_memory(ended.value)  # of 8 images: parts of one are no batch


class Plain(nn.Module):
    """Without batch norm or dropout; memory runs out where it sees more than `fits` images."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.fits = fits
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(400, 2))

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.fits:
            ask_for_too_much()
        return self.body(images)  # type: ignore[no-any-return]


def phase(kind: str, dataset: DataSet) -> Phase:
    rows = np.arange(24)
    halves = (Share(dataset, rows[:12]), Share(dataset, rows[12:], weight=2.0, fades=True))
    beside = (Share(dataset, rows, beside=(dataset, rows[::-1].copy())),)
    domains = (Share(dataset, rows, domains=rows % 2, groups=rows % 2),)
    return {
        "two shares": Phase(halves, 4, loss="class_weights"),
        "mixup": Phase(halves, 4, mixup=True),
        "agreement": Phase(beside, 4, agreement=5.0),
        "group_dro": Phase(domains, 4, loss="group_dro"),
        "coral": Phase(domains, 4, align="coral"),
    }[kind]


def trained(kind: str, fits: int, inputs: dict[str, Path]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    config = ClassifierConfig(batch_size=9, lr=1e-2)
    regimen = Regimen((phase(kind, open_dataset(inputs["prepare"])),), net=Plain(fits))
    return train(config, regimen, ("normal", "disease"), Hardware("cpu", "float32"), seed=3).state_dict()


@pytest.mark.parametrize(("kind", "fits", "parts"), [("two shares", 5, 2), ("mixup", 3, 4), ("agreement", 10, 2)])
def test_a_classifier_learns_from_parts_what_it_learns_from_the_whole_batch(
    kind: str, fits: int, parts: int, noise_inputs: MakeInputs, caplog: pytest.LogCaptureFixture
) -> None:
    """But for batch norm and dropout, which this one does not have."""
    inputs = noise_inputs()
    with divided_batches() as divided:
        whole = trained(kind, 100, inputs)
        assert divided == [] and not caplog.text
        found = trained(kind, fits, inputs)
        assert divided == [parts]
    assert f"anew with batches of 9 in {parts} parts of {-(-9 // parts)} or less" in caplog.text
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "fits"), [("group_dro", 5), ("coral", 5), ("two shares", 1)])
def test_a_loss_of_the_whole_batch_is_not_divided_nor_are_pairs(kind: str, fits: int, noise_inputs: MakeInputs) -> None:
    with divided_batches() as divided, pytest.raises(RuntimeError) as ended:
        trained(kind, fits, noise_inputs())
    assert is_out_of_memory(ended.value) and divided == []


def test_parts_hold_classes_domains_and_shares_alike() -> None:
    """Of a batch of two shares: the first real, its classes in turn, the second synthetic."""
    share, label, domain = torch.arange(16) // 8, torch.arange(16) % 2, torch.arange(16) // 2 % 2
    target = nn.functional.one_hot(label, 2).float()
    images = (share * 4 + label * 2 + domain).float().view(16, 1, 1, 1)
    whole = Mixed(images, target, torch.ones(16), share, domain)
    found = [part.images.flatten().sort().values.tolist() for part in in_parts(whole, 2)]
    assert found == [[0, 1, 2, 3, 4, 5, 6, 7]] * 2


def test_the_report_says_which_arms_were_divided() -> None:
    assert divided_note("real", [{}, {"called_rare": {}}]) == ()
    (said,) = divided_note("real", [{}, {"parts": 2}, {"parts": 4}])
    assert said.startswith(
        "real: memory ran out, so 2 of its 3 classifiers were trained with every batch in up to 4 parts"
    )
