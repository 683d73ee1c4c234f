"""Images a second of the default GAN, bf16 against float32, measured in turn so that both see the same machine.

Run: .venv/bin/python benchmarks/training_speed.py
"""

from __future__ import annotations

import statistics
import time

from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.gan_cost import noise_training
from pipeline.adversarial.loop import train
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.nets.sizes import ImageShape

ROUNDS, STEPS = 5, 10
NARROW = SnganConfig(batch_size=16, generator_width=16, discriminator_width=16)
CASES = {
    "2D, 32 x 32, batch 32": ((32, 32), SnganConfig()),
    "2D, 64 x 64, batch 32": ((64, 64), SnganConfig()),
    "3D, 32 x 32 x 32, batch 16": ((32, 32, 32), NARROW),
}


def rate(shape: tuple[int, ...], config: SnganConfig, precision: str, device: str) -> float:
    """Images a second over `STEPS` steps, after as many to warm up."""
    training = noise_training(config, ImageShape(shape, 1, 3), Hardware(device, precision))
    images = STEPS * config.batch_size
    train(training, images, lambda _: None)
    started = time.perf_counter()
    train(training, 2 * images, lambda _: None)
    return images / (time.perf_counter() - started)


def main() -> None:
    device = resolve_hardware().device
    print(f"{'case':<28} {'float32':>9} {'bf16':>9} {'ratio (min to max)':>22}")
    for name, (shape, config) in CASES.items():
        pairs = [(rate(shape, config, "float32", device), rate(shape, config, "bf16", device)) for _ in range(ROUNDS)]
        ratios = [fast / slow for slow, fast in pairs]
        slow, fast = (statistics.median(values) for values in zip(*pairs, strict=True))
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:<28} {slow:>9.0f} {fast:>9.0f} {spread:>22}")


if __name__ == "__main__":
    main()
