"""Time and memory of the quality figures on random features: 1,000, 10,000 and 100,000 real against as many synthetic.

Each row is a process of its own. `value` is the figure with its interval as the stage makes them; above `max_images`
(10,000) precision, recall, density and coverage are of a draw of that size from both sets, and the nearest of all
training images is sought for that many synthetic images.

Run: .venv/bin/python benchmarks/quality_speed.py [most images]    (appends to benchmarks/results/quality_speed.csv)
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import append

RESULT = Path(__file__).parent / "results" / "quality_speed.csv"
WIDTH = 1280
SIZES = (1_000, 10_000, 100_000)
FIGURES = ("fid", "kid", "prdc", "nearest")
MAX_IMAGES, PART, DRAWS = 10_000, 2000, 20


def measure(figure: str, images: int) -> dict[str, Any]:
    """One figure, in this process."""
    import numpy as np
    import torch

    from pipeline.measures.coverage import nearest_distances, prdc
    from pipeline.measures.frechet import fid_interval
    from pipeline.measures.kernel_distance import kid
    from pipeline.measures.subsampling import margins

    random = np.random.default_rng(0)
    real, fake = (random.standard_normal((images, WIDTH), dtype=np.float32) for _ in range(2))

    def of_draw() -> object:
        drawn = [each[:MAX_IMAGES] for each in (real, fake)]
        return prdc(drawn[0], drawn[1]), margins(
            lambda one, two: [prdc(drawn[0][one], drawn[1][two]).coverage],
            (len(drawn[0]), len(drawn[1])), draws=DRAWS, seed=0, most=PART,
        )  # fmt: skip

    figures: dict[str, Callable[[], object]] = {
        "fid": lambda: fid_interval(real, fake, draws=DRAWS, most=PART),
        "kid": lambda: kid(real, fake),
        "prdc": of_draw,
        "nearest": lambda: nearest_distances(real, fake[:MAX_IMAGES]),
    }
    before = peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    figures[figure]()
    return {
        "figure": figure,
        "images": images,
        "features": WIDTH,
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "mib_beside_the_features": round(peak_mib() - before),
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(most: int) -> None:
    for images in (size for size in SIZES if size <= most):
        for figure in FIGURES:
            command = [sys.executable, __file__, figure, str(images)]
            finished = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(finished.stdout.splitlines()[-1])
            print(row)
            append(RESULT, [row], list(row))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else max(SIZES))
