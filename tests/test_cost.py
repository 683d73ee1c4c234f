"""What work is expected to cost, by worked cases and by counting all of it. Real time is not tested."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pipeline.adversarial import gan_cost
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.gan_cost import mean_step, noise_training
from pipeline.adversarial.loop import train
from pipeline.config.families import validate_gan
from pipeline.core import cost
from pipeline.core.compute import Hardware
from pipeline.core.cost import FlopCount, one_thread, step_cost, wall_minutes
from pipeline.nets.sizes import ImageShape

CPU = Hardware("cpu", "float32")


def steps_of(
    monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]
) -> tuple[Callable[[int], object], list[int]]:
    """Steps of 48 FLOPs an image and 10 more that take `seconds` of a clock of their own, and the sizes asked for."""
    now, asked = [0.0], list[int]()
    monkeypatch.setattr(cost, "_clock", lambda device: now[0])

    def make(images: int) -> Callable[[], None]:
        asked.append(images)

        def step() -> None:
            now[0] += seconds(images)
            torch.ones(images, 3) @ torch.ones(3, 8)
            torch.ones(1, 5) @ torch.ones(5, 1)

        return step

    return make, asked


@pytest.mark.parametrize(
    ("batch", "fixed", "each", "sizes"),
    [
        (2, 0.01, 0.002, [2]),
        (32, 0.01, 0.002, [2, 32]),  # a step of 32 takes 74 ms: it is timed as it is
        (1024, 0.01, 0.002, [2, 57]),  # 2 take 14 ms: 4 x 0.2 / 0.014 images, and the line to 1024
        (32, 0.0, 0.05, [2, 8]),
    ],
)
def test_a_step_is_reckoned_from_two_sizes(
    monkeypatch: pytest.MonkeyPatch, batch: int, fixed: float, each: float, sizes: list[int]
) -> None:
    make, asked = steps_of(monkeypatch, lambda images: fixed + each * images)
    found = step_cost(make, batch, "cpu")
    assert asked == sizes
    assert found.flops == pytest.approx(48 * batch + 10)
    assert found.seconds == pytest.approx(fixed + each * batch)


def test_a_long_step_is_measured_once_and_taken_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    make, asked = steps_of(monkeypatch, lambda images: 2.0 * images)
    found = step_cost(make, 16, "cpu")
    assert asked == [2] and cost._clock("cpu") == 4.0
    assert found.seconds == pytest.approx(32.0)


@pytest.mark.parametrize(
    ("fits", "cores", "minutes"),
    [
        (1, 1, 10.0),
        (4, 1, 40.0),
        (1, 2, 10 / 2**0.6),
        (2, 2, 10.0),
        (3, 2, 20.0),
        (2, 8, 10 / 4**0.6),
        (9, 8, 20.0),
    ],
)
def test_fits_run_side_by_side_or_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, fits: int, cores: int, minutes: float
) -> None:
    monkeypatch.setattr(cost, "available_cores", lambda: cores)
    assert wall_minutes(600.0, fits, "cpu", 64 * 64) == pytest.approx(minutes)
    assert wall_minutes(600.0, fits, "cuda", 64 * 64) == pytest.approx(10.0 * fits)


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_lazy_terms_make_kinds_of_steps() -> None:
    """stylegan2: R1 every 16th step, path length every 4th."""
    recipe = FAMILIES["stylegan2"].recipe(validate_gan({"family": "stylegan2"}))
    assert dict(gan_cost._kinds_of_steps(recipe)) == {0: 1 / 16, 4: 3 / 16, 1: 12 / 16}


@pytest.mark.parametrize(("name", "cycle"), [("sngan", 1), ("stylegan2", 16)])
def test_flops_of_a_mean_step_are_those_of_a_whole_cycle(name: str, cycle: int) -> None:
    config = validate_gan({"family": name, "batch_size": 8, "generator_width": 8, "discriminator_width": 8})
    training = noise_training(config, ImageShape((16, 16), 1, 2), CPU)
    with FlopCount() as counter:
        train(training, cycle * training.images_per_step, lambda _: None)
    assert mean_step(config, ImageShape((16, 16), 1, 2), CPU).flops == pytest.approx(counter.total / cycle, rel=1e-6)


def test_a_batch_in_parts_costs_its_parts() -> None:
    whole = validate_gan({"family": "sngan", "batch_size": 4, "generator_width": 8, "discriminator_width": 8})
    parts = validate_gan({**whole.model_dump(), "batch_size": 8, "accumulate": 2})
    once, twice = (mean_step(config, ImageShape((8, 8), 1, 2), CPU).flops for config in (whole, parts))
    assert twice == pytest.approx(2 * once)
