"""Training K small CNNs as one stacked network against training them one after the other: when is it faster?

Both variants take the same steps in turn, so that both see the same machine; the figure is the ratio of their times,
alone / together (above 1: together is faster), with its quartiles over the rounds. It says nothing of other machines.

Run: OMP_WAIT_POLICY=passive .venv/bin/python benchmarks/classifiers_together.py [float32 | bf16]
Rows go to benchmarks/results/classifiers_together.csv. On a machine that is shared, threads that wait must not spin:
without that setting a step of two threads took twenty times as long.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rows import append

from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.supervised.fit import Phase, Regimen, Share, fit
from pipeline.supervised.together import fit_together

CLASSES = ("a", "b")
COUNTS, THREADS, SIZES = (1, 3, 6, 12), (1, 2), ((32, 32), (32, 32, 32))
ROUNDS = {2: 5, 3: 3}
STEPS = {2: 4, 3: 1}
"""Steps of a round: enough that setting the networks up does not count, few enough that both see the same machine."""
RESULTS = Path(__file__).parent / "results" / "classifiers_together.csv"
FIELDS = ("device", "precision", "size", "threads", "classifiers", "rounds", "seconds_alone", "seconds_together",
          "ratio", "ratio_q1", "ratio_q3")  # fmt: skip


def noise(size: tuple[int, ...]) -> DataSet:
    images = np.random.default_rng(0).integers(0, 255, (64, 1, *size), dtype=np.uint8)
    manifest = pd.DataFrame({"image_id": map(str, range(64)), "label": list(CLASSES) * 32, "patient_id": ""})
    return DataSet(Path("noise"), manifest, images, Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))


def seconds(data: DataSet, count: int, hardware: Hardware, steps: int, *, together: bool) -> float:
    """Of `count` fits of `steps` steps."""
    config = ClassifierConfig(batch_size=32)
    regimens = [Regimen((Phase((Share(data, np.arange(64)),), steps),)) for _ in range(count)]
    started = time.perf_counter()
    if together:
        names = [str(number) for number in range(count)]
        fit_together(config, regimens, CLASSES, hardware, seeds=range(count), names=names)
    else:
        for number, regimen in enumerate(regimens):
            fit(config, regimen, CLASSES, hardware, seed=number)
    if hardware.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def row(size: tuple[int, ...], threads: int, count: int, hardware: Hardware) -> dict[str, str | int]:
    torch.set_num_threads(threads)
    data, steps, rounds = noise(size), STEPS[len(size)], ROUNDS[len(size)]
    for together in (False, True):
        seconds(data, count, hardware, 1, together=together)
    pairs = [[seconds(data, count, hardware, steps, together=way) for way in (False, True)] for _ in range(rounds)]
    low, ratio, high = np.quantile([alone / together for alone, together in pairs], (0.25, 0.5, 0.75))
    alone, together = np.median(pairs, axis=0) / steps / count
    figures = (f"{alone:.4f}", f"{together:.4f}", f"{ratio:.2f}", f"{low:.2f}", f"{high:.2f}")
    facts = (hardware.device, hardware.precision, "x".join(map(str, size)), threads, count, rounds)
    return dict(zip(FIELDS, (*facts, *figures), strict=True))


def main(precision: str) -> None:
    hardware = resolve_hardware("auto", precision)
    for threads, size, count in itertools.product(THREADS if hardware.device == "cpu" else (1,), SIZES, COUNTS):
        found = row(size, threads, count, hardware)
        print(*found.values(), flush=True)
        append(RESULTS, [found], FIELDS)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "float32")
