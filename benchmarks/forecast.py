"""What `radaug validate` forecasts of one GAN and one classifier against what their steps take, and what it costs.

Run: .venv/bin/python benchmarks/forecast.py [ROUNDS]        (about 4 minutes)

The forecast counts and times steps on few images and reckons up to the run's batch; here the run's own steps are timed,
on one thread as well, in turn with the forecasts. Both are seconds of the process's own computing, so that a busy
machine slows both alike. `costs` is what one forecast itself computes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.adversarial.gan_cost import mean_step, noise_training, shape_of_nets
from pipeline.adversarial.loop import train
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.compute import resolve_hardware
from pipeline.core.cost import one_thread
from pipeline.supervised.classifier_cost import noise_step, training_on_noise

ROUNDS, STEPS = 5, 4
DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
VOLUMES = ["data.spatial_dims=3", "gan.batch_size=16", "gan.generator_width=16", "gan.discriminator_width=16"]
CASES = {
    "demo, 32 x 32": [],
    "64 x 64": ["data.spatial_size=64"],
    "32 x 32 x 32, batch 16, width 16": VOLUMES,
    "stylegan2, 32 x 32": ["gan.family=stylegan2"],
}


def gan_steps(experiment: Experiment) -> Callable[[], float]:
    """What gives the seconds of a step, the mean over a cycle of lazy terms."""
    hardware = resolve_hardware("cpu", experiment.compute.precision)
    training = noise_training(experiment.gan, shape_of_nets(experiment), hardware)
    steps = max(STEPS, *(term.every for player in training.recipe.players for term in player.terms))

    def seconds() -> float:
        return spent(lambda: train(training, training.num_images + steps * training.images_per_step, _nothing)) / steps

    seconds()
    return seconds


def classifier_steps(experiment: Experiment) -> Callable[[], float]:
    """What gives the seconds of a classifier's step."""
    run = training_on_noise(experiment, experiment.classifier, steps=4 * STEPS)
    run()
    return lambda: spent(run) / (4 * STEPS)


def spent(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _nothing(training: object) -> None:
    del training


def main(rounds: int) -> None:
    print(f"One thread, {rounds} rounds: median (min to max)\n")
    print("| case | net | forecast, ms a step | measured, ms a step | forecast / measured | costs, s |")
    print(f"|{'---|' * 6}")
    for name, overrides in CASES.items():
        experiment = load_experiment(DEMO, [*overrides, "compute.device=cpu"])
        hardware = resolve_hardware("cpu", experiment.compute.precision)
        nets = {
            "GAN": (lambda: mean_step(experiment.gan, shape_of_nets(experiment), hardware), gan_steps),  # noqa: B023
            "classifier": (lambda: noise_step(experiment, experiment.classifier), classifier_steps),  # noqa: B023
        }
        with one_thread():
            for net, (forecast, steps) in nets.items():
                measure, rows = steps(experiment), []
                for _ in range(rounds):
                    started = time.process_time()
                    expected = forecast().seconds * 1000
                    costs = time.process_time() - started
                    rows.append((expected, measure() * 1000, costs))
                ratios = [expected / measured for expected, measured, _ in rows]
                expected, measured, costs = (spread(values, 2) for values in zip(*rows, strict=True))
                cells = [expected, measured, spread(ratios, 2), costs]
                print(f"| {name} | {net} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)
