"""DP-SGD on a discriminator: whose gradients are clipped, what noise they get, who is drawn, what a resume keeps."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from tiny_training import CLASSES, SIDE, config, steps, stored, tensors
from torch import Tensor

from pipeline.adversarial import assembly
from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.checkpoints import CheckpointError, take_up
from pipeline.adversarial.log import load_resume, save_resume
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.private import pace
from pipeline.adversarial.private.budget import Budget, BudgetSpent
from pipeline.adversarial.private.pace import Pace, PaceSchedule
from pipeline.adversarial.private.stepping import PrivateStepper, PrivateTurn, clipped_sums
from pipeline.core.compute import Hardware
from pipeline.data.batches.patients import PatientBatch, PatientStream
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.sizes import ImageShape

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
FAMILIES = ("gan", "dcgan", "cgan")
PATIENTS, MOVES = 40, 3


@pytest.fixture(autouse=True)
def known_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings of one test draw the same patients and noise, as they never do otherwise."""
    monkeypatch.setattr(assembly, "secret_seed", lambda: 11)


def images(patients: int = PATIENTS, each: int = 2) -> StoredImages:
    return replace(stored(patients * each), patient=torch.arange(patients * each) // each)


def budget(noise: float = 1.0, clip: float = 1.0, allowed: int = 60) -> Budget:
    return Budget(10.0, 1e-3, PATIENTS, clip, noise, 8 / PATIENTS, allowed)


def training_of(
    family: str = "cgan",
    own: Budget | None = None,
    shown: StoredImages | None = None,
    moves: int | str = MOVES,
    **changes: Any,
) -> GanTraining:
    dp = {"epsilon": 10, "discriminator_steps": moves}
    gan, shown = config(family, dp=dp, augment_probability=0, **changes), shown or images()
    shape = ImageShape(shown.shape[1:], shown.shape[0], CLASSES, positive=(2,))
    return assemble(gan, shown, shape, Hardware("cpu", "float32"), seed=3, budget=own or budget())


def private(training: GanTraining) -> PrivateStepper:
    assert isinstance(training.stepper, PrivateStepper)
    return training.stepper


def drawn(rows: Sequence[int], training: GanTraining) -> PatientBatch:
    batch = images().batch(torch.tensor(rows, dtype=torch.int64))
    return PatientBatch(batch.images, batch.label, asked=torch.zeros(8, dtype=torch.int64))


def turn_on(training: GanTraining, batch: PatientBatch, z: Tensor) -> PrivateTurn:
    turn = PrivateTurn(training.context, {"patients": batch}, ("discriminator",))
    turn.z = z
    return turn


def plain_gradients(training: GanTraining, batch: PatientBatch, z: Tensor) -> list[list[Tensor]]:
    """Of each patient, by one backward pass of autograd over his image and his fake alone."""
    player = training.recipe.players[0]
    weights = private(training).weights(player)
    found = []
    for number in range(len(batch.label)):
        one = PatientBatch(batch.images[number : number + 1], batch.label[number : number + 1], asked=batch.asked)
        turn = turn_on(training, one, z[number : number + 1])
        loss = torch.stack([weighted.term(turn) for weighted in player.terms]).sum()
        found.append(list(torch.autograd.grad(loss, weights)))
    return found


@pytest.mark.parametrize("family", [*FAMILIES, "auxiliary"])
def test_each_patient_has_the_gradient_of_his_image_and_his_fake_together(family: str) -> None:
    changes = {"conditioning": "auxiliary"} if family == "auxiliary" else {}
    training = training_of("cgan" if changes else family, **changes)
    player, batch, z = training.recipe.players[0], drawn([0, 3, 7, 20, 41], training), torch.randn(5, 6)
    stepper = private(training)
    stepper._only(player)
    found = stepper._gradients(player, turn_on(training, batch, z), step=0)
    for number, plain in enumerate(plain_gradients(training, batch, z)):
        for gradient, expected in zip(found, plain, strict=True):
            torch.testing.assert_close(gradient[number], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 9, 10), (12, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_are_each_patients_own_in_volumes_and_colours_too(size: tuple[int, ...], channels: int) -> None:
    random = torch.Generator().manual_seed(2)
    made = torch.randint(0, 255, (80, channels, *size), generator=random, dtype=torch.uint8)
    shown = replace(images(), stored=made, masks=None)
    training = training_of("cgan", shown=shown)
    stepper, player, z = private(training), training.recipe.players[0], torch.randn(4, 6)
    read = shown.batch(torch.tensor([0, 3, 7, 20]))
    batch = PatientBatch(read.images, read.label, asked=torch.zeros(8, dtype=torch.int64))
    stepper._only(player)
    found = stepper._gradients(player, turn_on(training, batch, z), step=0)
    for number, plain in enumerate(plain_gradients(training, batch, z)):
        for gradient, expected in zip(found, plain, strict=True):
            torch.testing.assert_close(gradient[number], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_a_move_is_the_sum_of_clipped_gradients_over_the_expected_batch(clip: float) -> None:
    training = training_of(own=budget(noise=0.0, clip=clip))
    player, batch, z = training.recipe.players[0], drawn([0, 3, 7, 20, 41], training), torch.randn(5, 6)
    stepper = private(training)
    plain = plain_gradients(training, batch, z)
    norms = [torch.cat([part.flatten() for part in one]).norm() for one in plain]
    assert (min(norms) > clip) == (clip < 1), "one bound cuts all of them, the other none"
    stepper.move(player, [turn_on(training, batch, z)], 1, 0)
    for number, weight in enumerate(stepper.weights(player)):
        expected = sum(one[number] * min(1.0, clip / float(norm)) for one, norm in zip(plain, norms, strict=True)) / 8
        torch.testing.assert_close(weight.grad, expected, atol=1e-7, rtol=1e-4)


def test_one_patient_more_moves_the_sum_by_no_more_than_the_clip() -> None:
    """Whatever the image, extreme ones too; and by more than that, were real and fake clipped apart."""
    training = training_of(own=budget(noise=0.0, clip=0.02))
    player, stepper = training.recipe.players[0], private(training)
    stepper._only(player)
    z = torch.randn(5, 6)
    for odd in (torch.ones(1, SIDE, SIDE), -torch.ones(1, SIDE, SIDE), 1e3 * torch.randn(1, SIDE, SIDE)):
        batch = drawn([0, 3, 7, 20, 41], training)
        batch.images[4] = odd
        fewer = PatientBatch(batch.images[:4], batch.label[:4], asked=batch.asked)
        sums = []
        for one in (batch, fewer):
            gradients = stepper._gradients(player, turn_on(training, one, z[: len(one.label)]), 0)
            sums.append(clipped_sums(stepper.weights(player), gradients, stepper.budget.clip))
        moved = torch.cat([(one - other).flatten() for one, other in zip(*sums, strict=True)]).norm()
        assert 0 < moved <= 0.02 * 1.001


def test_noise_has_the_spread_that_was_accounted_for() -> None:
    training = training_of(own=budget(noise=3.0, clip=0.5))
    player, stepper = training.recipe.players[0], private(training)
    stepper.move(player, [turn_on(training, drawn([], training), torch.zeros(0, 6))], 1, 0)
    noise = torch.cat([weight.grad.flatten() for weight in stepper.weights(player)])
    assert len(noise) > 500
    assert float(noise.std()) == pytest.approx(3.0 * 0.5 / 8, rel=0.12) and abs(float(noise.mean())) < 0.03
    assert stepper.budget.looks == 1, "an empty batch is a look like any other"


def show_others(training: GanTraining, shift: int) -> None:
    """Other pixels and other classes to the same training."""
    own = training.streams["patients"]
    assert isinstance(own, PatientStream)
    changed = replace(own.images, stored=own.images.stored + shift, label=(own.images.label + shift) % CLASSES)
    training.streams["patients"].images = changed


def test_no_image_reaches_a_generator_but_through_the_discriminator() -> None:
    """With other images and labels, a generator's move is the same, bit for bit; no figure of real logits is told."""
    moved, told = [], []
    for shift in (0, 100):
        training = training_of()
        show_others(training, shift)
        generator = training.recipe.players[1]
        figures = training.stepper.move(generator, [training.turn(generator)], 1, 0)
        assert figures.keys() == {"generator", "fakes_told"}
        told.append(float(figures["fakes_told"]))
        moved.append(tensors(training.context.nets["generator"].state_dict()))
    assert all(torch.equal(moved[0][name], moved[1][name]) for name in moved[0]) and told[0] == told[1]
    training = training_of()
    discriminator = training.recipe.players[0]
    assert training.stepper.move(discriminator, [training.turn(discriminator)], 1, 0) == {}


def test_patients_are_drawn_each_by_himself_and_show_one_image() -> None:
    """Numbers drawn are binomial (mean and variance), pairs are independent, and all of a patient's images come."""
    each, draws = 3, 4000
    stream = PatientStream(images(10, each), 2, CLASSES, torch.Generator().manual_seed(0))
    seen = torch.zeros(draws, 10)
    shown: set[int] = set()
    for number in range(draws):
        rows = stream.next_rows()
        patients = rows // each
        assert len(patients.unique()) == len(rows)
        seen[number, patients] = 1
        shown |= set(rows.tolist())
    assert stream.rate == 0.2 and shown == set(range(30))
    torch.testing.assert_close(seen.mean(dim=0), torch.full((10,), 0.2), atol=0.03, rtol=0)
    sizes = seen.sum(dim=1)
    assert float(sizes.var()) == pytest.approx(10 * 0.2 * 0.8, rel=0.1)
    assert float((sizes == 0).float().mean()) == pytest.approx(0.8**10, abs=0.02), "empty batches come as they must"
    correlation = torch.corrcoef(seen.T) - torch.eye(10)
    assert correlation.abs().max() < 0.07


def test_empty_batches_are_moves_too() -> None:
    training = training_of()
    with mock.patch.object(PatientStream, "next_rows", return_value=torch.zeros(0, dtype=torch.int64)):
        steps(training, 1)
    assert private(training).budget.looks == MOVES


def test_the_training_ends_where_the_budget_does() -> None:
    training = training_of(own=budget(allowed=2 * MOVES + 1), num_images=10_000)
    assert training.total_images == 2 * MOVES * 8
    steps(training, 2)
    with pytest.raises(BudgetSpent):
        steps(training, 1)


def followed(schedule: PaceSchedule, shares: Sequence[float], total: int = 10_000) -> list[int]:
    """The discriminator's moves before each of the generator's, whose fakes it then tells to these shares."""
    context: Any = SimpleNamespace(states={"pace": Pace()})
    training: Any = SimpleNamespace(context=context, figures={}, total_images=8 * total, num_images=0, step=0)
    made = []
    for share in shares:
        schedule(training)
        made.append(int(context.states["pace"].moves))
        training.num_images += 8 * made[-1]
        training.figures, training.step = {"fakes_told": torch.tensor(share)}, training.step + 1
    return made


def test_the_pace_grows_where_too_few_fakes_are_told() -> None:
    """Reckoned by hand: with 800 moves there are 4 of the generator at each rate, and half of each share counts.

    The running mean is 1, 0.75, 0.625, 0.5625 (below 0.6: two moves), then 0.53, 0.52, 0.51, 0.50 (five moves), then
    0.75 and above, so that it stays.
    """
    shares = [1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, *[1.0] * 6]
    assert followed(PaceSchedule(800, 8), shares) == [1] * 4 + [2] * 4 + [5] * 6
    assert followed(PaceSchedule(800, 8), shares, total=20) == [1] * 4 + [2] * 4 + [5, 3, 1, 1, 1, 1]
    for moves, grace in ((100, 4), (10_000, 50), (165_000, 200)):  # the last: MNIST at ε = 1 in the paper
        assert followed(PaceSchedule(moves, 8), [0.5] * (grace + 1))[-2:] == [1, 2]


def test_the_pace_knows_nothing_of_the_images_but_by_the_discriminators_weights() -> None:
    """The same weights and other images: the same pace, bit for bit. What moves these weights has been paid for."""
    paces = []
    for shift in (0, 100):
        training = training_of(moves="adaptive", num_images=8 * 60)
        show_others(training, shift)
        with mock.patch.object(training.stepper.optimizers["discriminator"], "step"):
            state_after(training, 8)
        paces.append({name: value.clone() for name, value in training.context.states["pace"].named_buffers()})
    assert paces[0]["since"] + paces[0]["place"] > 0
    assert all(torch.equal(paces[0][name], paces[1][name]) for name in paces[0])


def test_an_adaptive_training_spends_all_that_there_is_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 steps of one move, 4 of two, 4 of five, and the 3 that are left of 35, where the rate would be ten."""
    monkeypatch.setattr(pace, "ENOUGH", 1.0)
    training = training_of(own=budget(allowed=35), num_images=800 * 8, moves="adaptive")
    train(training, training.total_images, lambda _: None)
    assert private(training).budget.looks == 35 and training.step == 13 and training.num_images == 35 * 8


def state_after(training: GanTraining, num: int) -> dict[str, Tensor]:
    for _ in range(num):  # of a length that may change
        train(training, training.num_images + 1, lambda _: None)
    return tensors(training.state_dict())


def saved(training: GanTraining) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(training.state_dict(), file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


@pytest.mark.parametrize("moves", [MOVES, "adaptive"])
def test_a_killed_training_goes_on_with_the_same_bytes_and_the_same_epsilon(
    moves: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adaptive one is killed between two changes of its pace, which comes after 4, 8 and 12 moves of the generator.

    Where the discriminator tells nothing, that is (`ENOUGH` of 1).
    """
    monkeypatch.setattr(pace, "ENOUGH", 1.0)
    whole, parts = training_of(moves=moves, num_images=6400), (2, 2) if moves == MOVES else (6, 4)
    expected = state_after(whole, sum(parts))
    first = training_of(moves=moves, num_images=6400)
    state_after(first, parts[0])
    state = saved(first)
    monkeypatch.setattr(assembly, "secret_seed", lambda: 12)
    second = training_of(moves=moves, num_images=6400)
    take_up(second, state)
    found = state_after(second, parts[1])
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    assert second.budget is not None and whole.budget is not None
    assert second.budget.looks == whole.budget.looks == (4 * MOVES if moves == MOVES else 4 + 2 * 4 + 5 * 2)
    assert second.budget.spent() == whole.budget.spent()


def without_budget(state: dict[str, Any]) -> None:
    del state["stepper"]["budget"]


def with_fewer_looks(state: dict[str, Any]) -> None:
    state["stepper"]["budget"]["looks"] -= 1


def with_other_noise(state: dict[str, Any]) -> None:
    state["stepper"]["budget"]["noise"] = 9.0


def without_noise(state: dict[str, Any]) -> None:
    del state["stepper"]["noise"]


@pytest.mark.parametrize("change", [without_budget, with_fewer_looks, with_other_noise, without_noise])
def test_a_resume_without_what_was_spent_is_refused(
    change: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = training_of()
    steps(training, 2)
    state = saved(training)
    change(state)
    fresh = training_of()
    begun = copy.deepcopy(tensors(fresh.state_dict()))
    with pytest.raises(CheckpointError):
        take_up(fresh, state)
    torch.save(state, tmp_path / "resume.pt")
    with caplog.at_level(logging.WARNING):
        load_resume(tmp_path / "resume.pt", fresh)
    assert "training begins anew" in caplog.text
    now = tensors(fresh.state_dict())
    assert all(torch.equal(now[name], begun[name]) for name in begun) and private(fresh).budget.looks == 0
    save_resume(tmp_path / "own.pt", fresh)


def test_seeds_of_patients_and_noise_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the configuration's seed alone the noise could be made again, and taken away."""
    monkeypatch.undo()
    runs = [training_of() for _ in range(2)]
    for training in runs:
        steps(training, 1)
    one, other = (tensors(training.context.nets["discriminator"].state_dict()) for training in runs)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_the_budget_counts_patients_not_images() -> None:
    stream = training_of().streams["patients"]
    assert isinstance(stream, PatientStream) and stream.patients == PATIENTS and len(stream.images.label) == 80
    assert stream.rate == budget().rate
