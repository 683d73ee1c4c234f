"""Memory and time of a training step on volumes: with accumulation, with gradient checkpointing, with neither.

Each row is a process of its own, on one thread, and two steps: the first has every lazy term (R1, path length), the
second none; the second's processor time is given. `training_mib` is the peak less what the process held before its
first step (Python, torch, weights and images).

Run: .venv/bin/python benchmarks/memory.py    (about 6 minutes; adds what is missing to benchmarks/results/memory.csv)
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from rows import append

from pipeline.adversarial.gan_cost import noise_training
from pipeline.adversarial.loop import train
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware
from pipeline.nets.sizes import ImageShape

RESULT = Path(__file__).parent / "results" / "memory.csv"
PRECISION = "float32"
GRID = {
    ("sngan", 64, 8): [(1, False), (1, True), (4, False), (4, True)],
    ("stylegan2", 64, 8): [(1, False), (1, True), (4, False)],
    ("sngan", 128, 2): [(1, False), (2, False), (2, True)],
}
"""(family, side, batch size): (accumulate, checkpointing) of each row."""
CASES = [
    {"family": family, "side": side, "batch_size": size, "accumulate": accumulate, "checkpointing": checkpointing}
    for (family, side, size), rows in GRID.items()
    for accumulate, checkpointing in rows
]


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One case, in this process."""
    import torch

    torch.set_num_threads(1)
    settings = {key: value for key, value in case.items() if key != "side"}
    gan = validate_gan({**settings, "generator_width": 16, "discriminator_width": 16})
    training = noise_training(gan, ImageShape((case["side"],) * 3, 1, 2), Hardware("cpu", PRECISION))
    before = peak_mib()
    train(training, gan.batch_size, lambda _: None)
    started = time.process_time()
    train(training, 2 * gan.batch_size, lambda _: None)
    seconds = time.process_time() - started
    peak = peak_mib()
    return {
        **case,
        "precision": PRECISION,
        "peak_mib": round(peak),
        "training_mib": round(peak - before),
        "cpu_seconds_per_step": round(seconds, 2),
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def existing() -> list[dict[str, Any]]:
    """The cases whose rows are there."""
    if not RESULT.is_file():
        return []
    kept: list[dict[str, Any]] = pd.read_csv(RESULT)[list(CASES[0])].to_dict("records")
    return kept


def main() -> None:
    for case in (case for case in CASES if case not in existing()):
        command = [sys.executable, __file__, json.dumps(case)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(finished.stdout.splitlines()[-1])
        print(row)
        append(RESULT, [row], list(row))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main()
