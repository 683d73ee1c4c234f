"""Time and memory against the number of images, the resolution and the number of fits, with exponents.

Run: .venv/bin/python benchmarks/growth.py [STAGE ...] [--most 100000] [--limit 20] [--figure PNG]    (Linux)

A point is a process of its own, on one thread; its seconds are of the processor, its memory is the peak above what the
inputs take. A row ends before a point that would take more than `--limit` seconds if time grew linearly. The exponent
is the slope of the logarithms over the points of 0.05 s (8 MiB) and more, and of 1,000 images and more, with its
standard error; `last` is the slope of the last two points.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from growth_stages import STAGES, Call, verdict_of
from threadpoolctl import threadpool_limits

from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.gan_cost import noise_training
from pipeline.adversarial.loop import train
from pipeline.core.compute import Hardware
from pipeline.nets.sizes import ImageShape

matplotlib.use("Agg")
NUMBERS = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
SIDES = {"GAN step, 2D (batch 8)": (2, (32, 64, 128, 256)), "GAN step, 3D (batch 2)": (3, (32, 64, 128))}
FITS = (9, 18, 36, 72)
LEAST_SECONDS, LEAST_MIB, LEAST_IMAGES = 0.05, 8.0, 1000
Make = Callable[[int, Path], Call]
Point = tuple[float, float, float]
"""Size, seconds, MiB."""


def measured(make: Make, size: int) -> tuple[float, float]:
    """Processor seconds and peak MiB of one point, in a child."""
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_point, args=(make, size, send))
    child.start()
    send.close()
    try:
        found: tuple[float, float] = receive.recv()
    except EOFError:
        sys.exit(f"growth: a point of size {size} died; its error stands above")
    child.join()
    return found


def _point(make: Make, size: int, send: multiprocessing.connection.Connection) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        call = make(size, Path(place))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, started = _status("VmRSS"), time.process_time()
        call()
        send.send((time.process_time() - started, max(0.0, _status("VmHWM") - before)))


def _status(name: str) -> float:
    """MiB of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return float(lines[name].split()[0]) / 1024


def curve(make: Make, sizes: Sequence[int], limit: float) -> list[Point]:
    points: list[Point] = []
    for size in sizes:
        if points and points[-1][1] * size / points[-1][0] > limit:
            break
        points.append((size, *measured(make, size)))
    return points


def step(dims: int, batch: int) -> Make:
    """One step of the default family by the side, after one to warm up."""

    def make(side: int, root: Path) -> Call:
        config = SnganConfig(batch_size=batch, generator_width=16, discriminator_width=16)
        training = noise_training(config, ImageShape((side,) * dims, 1, 2), Hardware("cpu", "float32"))
        train(training, training.images_per_step, lambda _: None)
        return lambda: train(training, training.num_images + training.images_per_step, lambda _: None)

    return make


def exponent(points: Sequence[Point], column: int, least: float) -> str:
    """Such as `1.04 ± 0.02, last 1.10`; nothing where fewer than three points count."""
    kept = [(point[0], point[column]) for point in points if point[column] >= least]
    if len(kept) < 3:
        return "–"
    x, y = np.log(np.array(kept)).T
    slope, intercept = np.polyfit(x, y, 1)
    scatter = np.sqrt(np.square(y - slope * x - intercept).sum() / max(len(x) - 2, 1) / np.square(x - x.mean()).sum())
    return f"{slope:.2f} ± {scatter:.2f}, last {(y[-1] - y[-2]) / (x[-1] - x[-2]):.2f}"


def shown(name: str, points: Sequence[Point], sizes: Sequence[int]) -> str:
    cells = [f"{seconds:.3g} s, {mib:.0f} MiB" for _, seconds, mib in points]
    cells += ["–"] * (len(sizes) - len(points))
    counted = [point for point in points if name not in STAGES or point[0] >= LEAST_IMAGES]
    return (
        f"| {name} | {' | '.join(cells)} | {exponent(counted, 1, LEAST_SECONDS)} | {exponent(counted, 2, LEAST_MIB)} |"
    )


def table(name: str, sizes: Sequence[int], curves: dict[str, Make], limit: float) -> dict[str, list[Point]]:
    print(f"\n| {name} | {' | '.join(f'{size:,}' for size in sizes)} | exponent of time | of memory |")
    print("|---" * (len(sizes) + 3) + "|")
    found = {}
    for stage, make in curves.items():
        found[stage] = curve(make, sizes, limit)
        print(shown(stage, found[stage], sizes), flush=True)
    return found


def draw(curves: dict[str, list[Point]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for number, (name, points) in enumerate(curves.items()):
        size, seconds, _ = np.array(points).T
        style, mark = ("-", "o") if number < 10 else ("--", "s")  # there are ten colours
        axes.loglog(size, seconds, style, marker=mark, markersize=3.5, linewidth=1.2, label=name)
    ends = np.array([1000, 100_000])
    for power, y in ((1, 2e-2), (2, 2e-2)):
        axes.loglog(ends, y * (ends / ends[0]) ** power, color="0.75", linewidth=4, zorder=0)
        axes.text(ends[1], y * 100**power, f" N{'²' if power == 2 else ''}", color="0.5")
    axes.set(xlabel="images", ylabel="processor seconds, one thread", ylim=(2e-3, 400))
    axes.legend(fontsize=7, ncols=1, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", help="beginnings of the rows' names; all unless told")
    parser.add_argument("--most", type=int, default=max(NUMBERS))
    parser.add_argument("--limit", type=float, default=20)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)

    def asked(name: str) -> bool:
        return not arguments.stages or any(name.startswith(one) for one in arguments.stages)

    sizes = [number for number in NUMBERS if number <= arguments.most]
    curves = table("images", sizes, {name: make for name, make in STAGES.items() if asked(name)}, arguments.limit)
    for name, (dims, sides) in SIDES.items():
        if asked(name):
            table("side", sides, {name: step(dims, 8 if dims == 2 else 2)}, arguments.limit)
    if asked("verdict by fits"):
        table("fits (arms x seeds)", FITS, {"verdict, 2,000 images": verdict_of}, arguments.limit)
    if arguments.figure:
        draw(curves, arguments.figure)


if __name__ == "__main__":
    main()
