"""Images a second of one small GAN beside 0, 1, 2 and 4 busy processes: our number of threads against every fixed one.

Run: .venv/bin/python benchmarks/threads.py [ROUNDS]        (about 8 minutes on 2 idle cores)

Each column is a process of its own, and they are timed in turn: `auto` chooses its threads when the busy processes run
(`choose_threads`), the numbers are fixed counts, `spinning` is as many threads as cores that spin while they wait, as
libraries do by themselves (once a row: a step of it can take many seconds). The goal: auto is never more than 10 %
slower than the best fixed count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pipeline.core.threads import available_cores, choose_threads, use_threads

ROUNDS, CHUNK_S, LEVELS = 5, 1.5, (0, 1, 2, 4)
CASES = ("32 x 32", "32 x 32 x 32")
SPINNING = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
"""What GNU's and Intel's OpenMP do where nothing is set."""
BUSY = "import os, sys, time\nwhile time.monotonic() < float(sys.argv[1]) and os.getppid() == int(sys.argv[2]): pass"
BUSY_S = 900.0


class Fit:
    """A GAN on noise in a process of its own, that trains a while when it is asked to."""

    def __init__(self, case: str, threads: str) -> None:
        spinning = threads == "spinning"
        self._auto = threads == "auto"
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--fit", case, str(available_cores()) if spinning else threads],
            env={**os.environ, **(SPINNING if spinning else {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def choose(self) -> int:
        """Let an automatic one choose its threads again, now."""
        return int(self._ask("choose")) if self._auto else 0

    def rate(self) -> float:
        """Images a second over CHUNK_S seconds or more."""
        return self._ask("train")

    def close(self) -> None:
        self._process.communicate()  # its standard input ends, and it with it

    def _ask(self, what: str) -> float:
        assert self._process.stdin and self._process.stdout
        print(what, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def serve(case: str, threads: str) -> None:
    """The process of a `Fit`: answers a number to every line, until there are no more."""
    from pipeline.adversarial.families.sngan import SnganConfig
    from pipeline.adversarial.gan_cost import noise_training
    from pipeline.adversarial.loop import train
    from pipeline.core.compute import resolve_hardware
    from pipeline.nets.sizes import ImageShape

    shape = tuple(map(int, case.split(" x ")))
    config = (
        SnganConfig() if len(shape) == 2 else SnganConfig(batch_size=16, generator_width=16, discriminator_width=16)
    )
    training = noise_training(config, ImageShape(shape, 1, 3), resolve_hardware())
    if threads != "auto":
        use_threads(int(threads))
    for line in sys.stdin:
        if line.strip() == "choose":
            number = choose_threads()
            use_threads(number)
            print(number, flush=True)
            continue
        train(training, training.num_images + training.images_per_step, lambda _: None)
        before, started = training.num_images, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < CHUNK_S:
            train(training, training.num_images + training.images_per_step, lambda _: None)
        print((training.num_images - before) / elapsed, flush=True)


@contextmanager
def busy(number: int) -> Iterator[None]:
    """So many processes that keep a core busy each; they end with the block, with this process, or after BUSY_S."""
    until = str(time.monotonic() + BUSY_S)
    others = [subprocess.Popen([sys.executable, "-c", BUSY, until, str(os.getpid())]) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def fixed_counts(cores: int) -> list[str]:
    """1 to 4, then doubling, and all."""
    return [
        str(number) for number in range(1, cores + 1) if number <= 4 or number == cores or number & (number - 1) == 0
    ]


def spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main(rounds: int) -> None:
    counts = fixed_counts(available_cores())
    columns = ["auto", *counts]
    print(f"{available_cores()} cores, {rounds} rounds; images/s: median (min to max)\n")
    print(f"| image | busy | chosen | {' | '.join(columns)} | spinning | auto / best fixed |")
    print(f"|{'---|' * (len(columns) + 5)}")
    for case in CASES:
        with ExitStack() as stack:
            fits = {name: Fit(case, name) for name in (*columns, "spinning")}
            for fit in fits.values():
                stack.callback(fit.close)
                fit.rate()
            for level in LEVELS:
                with busy(level):
                    time.sleep(0.5)
                    chosen = fits["auto"].choose()
                    rows = [{name: fits[name].rate() for name in columns} for _ in range(rounds)]
                    spinning = fits["spinning"].rate()
                rates = {name: [row[name] for row in rows] for name in columns}
                best = max(counts, key=lambda name: statistics.median(rates[name]))
                ratios = [row["auto"] / row[best] for row in rows]
                cells = " | ".join(spread(rates[name], 0) for name in columns)
                print(f"| {case} | {level} | {chosen} | {cells} | {spinning:.0f} | {spread(ratios, 2)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fit"]:
        serve(*sys.argv[2:])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)
