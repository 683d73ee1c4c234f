"""Memory runs out in a GAN's training: the same batch in more parts, from the last checkpoint, and said so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_adversarial import fit_config

from pipeline.adversarial import fit
from pipeline.adversarial.fit import run
from pipeline.adversarial.loop import GanTraining
from pipeline.adversarial.stepping import Stepper
from pipeline.core.errors import is_out_of_memory
from pipeline.core.layout import TIMED_LOG

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
