"""Images a second of every family while it trains, on noise images: what a step costs, apart from what it learns.

Run: .venv/bin/python benchmarks/family_speed.py [FAMILY ...]

The default family is timed before and after every other one; the ratio is to the mean of both, so that a machine that
slows down meanwhile does not decide the order.
"""

from __future__ import annotations

import sys
import time

import torch

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.gan_cost import noise_training
from pipeline.adversarial.loop import train
from pipeline.config.families import validate_gan
from pipeline.core.compute import resolve_hardware
from pipeline.nets.sizes import ImageShape

CASES = {"2D, 32 x 32, batch 32": ((32, 32), 32, 32), "3D, 32 x 32 x 32, batch 8": ((32, 32, 32), 8, 8)}
STEPS = 6


def rate(family: str, shape: tuple[int, ...], batch: int, width: int) -> float:
    """Images a second over `STEPS` steps, after two to warm up."""
    values = {"family": family, "batch_size": batch, "generator_width": width, "discriminator_width": width}
    training = noise_training(validate_gan(values), ImageShape(shape, 1, 3), resolve_hardware())
    train(training, 2 * training.images_per_step, lambda _: None)
    started = time.perf_counter()
    train(training, (2 + STEPS) * training.images_per_step, lambda _: None)
    return STEPS * training.images_per_step / (time.perf_counter() - started)


def main() -> None:
    hardware = resolve_hardware()
    print(f"{hardware.device}, {hardware.precision}, {torch.get_num_threads()} thread(s); images/s (ratio to sngan)\n")
    print(f"| family | {' | '.join(CASES)} |\n|---|{'---|' * len(CASES)}")
    for family in sys.argv[1:] or FAMILIES:
        cells = []
        for shape, batch, width in CASES.values():
            before, own, after = (rate(name, shape, batch, width) for name in ("sngan", family, "sngan"))
            cells.append(f"{own:.0f} ({2 * own / (before + after):.2f})")
        print(f"| {family} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
