"""What a GAN step, sampling and the collapse watch cost beside the bare nets: interleaved, so that all see one machine.

    python benchmarks/step_speed.py [CASE ...] [--threads N] [--rounds N]

`bare` is forward and backward of the default family's nets in both moves on fixed tensors, spectral norms once a move,
and fused Adam: nothing is drawn, augmented, averaged, checked or logged. `plain` is our whole step without
augmentation, `augmented` with the default policy on every image. `sampling` is `sample` beside the generator's own
forward pass. `check` is one look of the watch at two classes, in training images' worth of time, and the share that all
looks have of a training of the case's length. Ratios are of processor time (of the clock on a GPU): the rounds' median
(least to largest).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

if __name__ == "__main__" and "--threads" not in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from peers_gan import images_of, our_steps, training_of
from timing import clock, in_turn, median, ratio
from torch.nn.utils import parametrize

from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.loop import GanTraining, sample
from pipeline.adversarial.watch import Probe, within_share
from pipeline.core.compute import Hardware, autocast, resolve_hardware
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import Condition, as_generator


@dataclass(frozen=True)
class Case:
    """Batch and width as memory allows; `shown`: images of a training of that size."""

    shape: tuple[int, ...]
    batch: int
    width: int
    steps: int
    shown: int


CASES = {
    "32x32": Case((32, 32), 32, 32, 8, 100_000),
    "64x64": Case((64, 64), 32, 32, 3, 50_000),
    "32x32x32": Case((32, 32, 32), 16, 16, 3, 16_000),
    "64x64x64": Case((64, 64, 64), 4, 16, 2, 4_000),
    "128x128x128": Case((128, 128, 128), 2, 8, 1, 1_000),
}
_SAMPLINGS = 4
DEFAULT = ["32x32", "64x64", "32x32x32"]


def bare_steps(training: GanTraining, images: StoredImages, hardware: Hardware, case: Case) -> Callable[[], object]:
    """As many steps as the case has, on the nets of `training`."""
    generator, discriminator = (training.context.nets[name] for name in ("generator", "discriminator"))
    adams = [torch.optim.Adam(net.parameters(), betas=(0.0, 0.9), fused=True) for net in (discriminator, generator)]
    batch = images.batch(torch.arange(case.batch, device=images.label.device))
    condition = Condition(label=batch.label)
    z = torch.randn(case.batch, as_generator(generator).latent_dim, device=batch.images.device)

    def step() -> None:
        discriminator.requires_grad_(True)
        with parametrize.cached(), autocast(hardware):
            with torch.no_grad():
                fake = generator(z, condition).float()
            logits = [discriminator(seen, condition).logits.float() for seen in (batch.images, fake)]
            (torch.relu(1 - logits[0]).mean() + torch.relu(1 + logits[1]).mean()).backward()
        discriminator.requires_grad_(False)
        adams[0].step()
        adams[0].zero_grad()
        with parametrize.cached(), autocast(hardware):
            fake = generator(z, condition).float()
            (-discriminator(fake, condition).logits.float().mean()).backward()
        adams[1].step()
        adams[1].zero_grad()

    return lambda: [step() for _ in range(case.steps)]


def sampling(training: GanTraining, batch: int) -> dict[str, Callable[[], object]]:
    """`sample` and the bare forward pass, both in float32 and evaluation mode."""
    generator = training.ema.nets["generator"].eval()
    device = training.context.draws.generator.device
    condition = Condition(label=torch.arange(batch, device=device) % 3)
    z = torch.randn(batch, as_generator(generator).latent_dim, device=device)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(_SAMPLINGS):
                generator(z, condition)

    return {"bare": bare, "sampling": lambda: [sample(generator, z, condition) for _ in range(_SAMPLINGS)]}


def measure(name: str, case: Case, hardware: Hardware, rounds: int) -> None:
    """One case's rows."""
    images = images_of(case.shape, hardware.device)
    config = SnganConfig(batch_size=case.batch, generator_width=case.width, discriminator_width=case.width)
    rivals = {"bare": bare_steps(training_of(config, images, hardware, augment=False), images, hardware, case)}
    for label, augment in (("plain", False), ("augmented", True)):
        rivals[label] = our_steps(training_of(config, images, hardware, augment), case.steps)
    found, kind, shown = in_turn(rivals, rounds), clock(), case.batch * case.steps
    for label, seconds in found.items():
        rate, dear = shown / median(seconds, "wall"), 1000 * median(seconds) / shown
        print(f"| {name} | {label} | {ratio(seconds, found['bare'], kind)} | {rate:.1f} | {dear:.2f} |", flush=True)
    training = training_of(config, images, hardware, augment=True)
    drawn = in_turn(sampling(training, case.batch), rounds)
    print(f"| {name} | sampling | {ratio(drawn['sampling'], drawn['bare'], kind)} | | |", flush=True)

    pair = images.of_classes([0, 1])
    allowed = within_share(config.watch, case.shown, 2)
    probe = Probe(allowed.images, ConditionSampler(pair), pair, 2, config.latent_dim, seed=0, part=case.batch)
    looks = {"check": lambda: probe.read(training), "step": our_steps(training, 1)}
    looked = in_turn(looks, max(2, rounds // 3))
    worth = median(looked["check"], kind) / (median(looked["step"], kind) / case.batch)
    share = allowed.checks * worth / case.shown
    what = f"{allowed.checks} checks of 2 x {allowed.images} in {case.shown:,} images"
    print(f"| {name} | check | {worth:.0f} images | share {100 * share:.1f} %: {what} | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=DEFAULT, help=", ".join(CASES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    hardware = resolve_hardware()
    print(f"{hardware.device}, {hardware.precision}, {chosen.threads} thread(s), {chosen.rounds} rounds\n")
    print("| size | what | beside bare | images/s | CPU s a 1,000 images |\n|---|---|---|---|---|")
    for name in chosen.cases:
        measure(name, CASES[name], hardware, chosen.rounds)


if __name__ == "__main__":
    main()
