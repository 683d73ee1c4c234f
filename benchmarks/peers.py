"""Our GAN step, warm epochs and metrics beside those of well-kept peers, in turn in one process.

Run: .venv/bin/python benchmarks/peers.py [gan] [data] [metrics] [--threads 1] [--rounds 5]    (about 7 minutes)

`gan` needs pytorch-ignite, on which MONAI's engines stand: pip install -e '.[peers]'. Without it those rows are left
out, and a line says so. Ratios are of processor time on the CPU (of the clock on a GPU), medians over the rounds with
the least and the largest; below 1 we are faster. On a GPU the steps of StyleGAN2 at 128² and 256² are told too, beside
the published ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Callable

import torch
from peers_data import epochs, metrics
from peers_gan import bare_steps, images_of, our_steps, their_steps, training_of
from threadpoolctl import threadpool_limits
from timing import clock, in_turn, median, ratio, timed

from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.families.stylegan2 import Stylegan2Config
from pipeline.adversarial.gan_cost import noise_training
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.nets.sizes import ImageShape

NARROW = SnganConfig(batch_size=16, generator_width=16, discriminator_width=16)
CASES = {"32²": ((32, 32), SnganConfig(), 4), "64²": ((64, 64), SnganConfig(), 2), "32³": ((32, 32, 32), NARROW, 1)}
"""Size, configuration, steps a round."""
EPOCHS = {"64²": ((64, 64), 512), "32³": ((32, 32, 32), 256)}
METRICS = {100: 500, 10_000: 200, 1_000_000: 5}
"""Cases: draws."""
PUBLISHED = {128: (12.8, 13.7), 256: (21.6, 24.2)}
"""Seconds for 1,000 images on one V100, batch of the authors' choice, ADA: the table in the README of
github.com/NVlabs/stylegan2-ada-pytorch."""


def gan(rounds: int) -> None:
    hardware = resolve_hardware()
    alike, kind = Hardware(hardware.device, "float32"), clock()
    has_ignite = importlib.util.find_spec("ignite") is not None
    print("\n## A step of the default GAN: our time over theirs\n")
    print("GanTrainer, usual: MONAI's defaults; careful: see peers_gan.py. All in float32, but `bf16` where native.\n")
    if not has_ignite:
        print("MONAI's GanTrainer is left out: pytorch-ignite is not installed (pip install -e '.[peers]').\n")
    print(
        "| size | augmentation | ours, images/s | GanTrainer, usual | GanTrainer, careful | bare nets | bf16, usual |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, (shape, config, steps) in CASES.items():
        images = images_of(shape, hardware.device)
        for augment in (False, True):
            training = training_of(config, images, alike, augment)
            rivals = {"ours": our_steps(training, steps)}
            rivals["bare"] = bare_steps(training, images, alike, config.batch_size, steps)
            if has_ignite:
                for word in ("usual", "careful"):
                    rivals[word] = their_steps(training, images, config, steps, augment, word == "careful")
            if hardware.precision != "float32":
                rivals["shipped"] = our_steps(training_of(config, images, hardware, augment), steps)
            found = in_turn(rivals, rounds)
            cells = [f"{steps * config.batch_size / median(found['ours'], kind):.0f}"]
            for ours, theirs in (("ours", "usual"), ("ours", "careful"), ("ours", "bare"), ("shipped", "usual")):
                both = ours in found and theirs in found
                cells.append(ratio(found[ours], found[theirs], kind) if both else "–")
            print(f"| {name} | {'own' if augment else 'none'} | {' | '.join(cells)} |", flush=True)
    if hardware.device == "cuda":
        published(hardware, rounds)


def published(hardware: Hardware, rounds: int) -> None:
    """Seconds for 1,000 images of our stylegan2 on this GPU, beside the published ones on a V100 (other hardware)."""
    print("\n| stylegan2, batch 32, one GPU | ours, s / 1,000 images | published, one V100 |\n|---|---|---|")
    for side, (low, high) in PUBLISHED.items():
        training = noise_training(Stylegan2Config(), ImageShape((side, side), 1, 1), hardware)
        images = 16 * training.images_per_step  # one of each lazy term
        steps = our_steps(training, 16)
        steps()
        seconds = statistics.median(timed(steps).wall for _ in range(rounds))
        print(f"| {side}² | {1000 * seconds / images:.1f} | {low} to {high} |", flush=True)


def data(rounds: int) -> None:
    print("\n## A warm epoch: our time over theirs\n")
    print("| size | images | ours, images/s | CacheDataset | PersistentDataset |\n|---|---|---|---|---|")
    for name, (shape, number) in EPOCHS.items():
        with epochs(shape, number) as rivals:
            found = in_turn(rivals, rounds)
        cells = [ratio(found["ours"], found[other]) for other in ("CacheDataset", "PersistentDataset")]
        print(f"| {name} | {number} | {number / median(found['ours']):.0f} | {' | '.join(cells)} |", flush=True)


def metrics_table(rounds: int) -> None:
    print(
        "\n## Metrics: our time over scikit-learn's\n\n| metric | cases | ratio | values differ by |\n|---|---|---|---|"
    )
    for number, draws in METRICS.items():
        for name, (ours, theirs, gap) in metrics(number, draws).items():
            repeats = max(1, 10_000 // number) if "draws" not in name else 1
            found = in_turn({"ours": _times(ours, repeats), "theirs": _times(theirs, repeats)}, rounds)
            print(f"| {name} | {number:,} | {ratio(found['ours'], found['theirs'])} | {gap:.1e} |", flush=True)


def _times(call: Callable[[], object], number: int) -> Callable[[], object]:
    return lambda: [call() for _ in range(number)]


SECTIONS = {"gan": gan, "data": data, "metrics": metrics_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), help=", ".join(SECTIONS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    threadpool_limits(arguments.threads)
    hardware = resolve_hardware()
    print(
        f"{hardware.device}, {hardware.precision} by default, {arguments.threads} thread(s), {arguments.rounds} rounds"
    )
    for name in arguments.sections:
        SECTIONS[name](arguments.rounds)


if __name__ == "__main__":
    main()
