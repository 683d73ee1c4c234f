"""Near copies among 10,000 images of 10,000: how long does the search take, and which copies does it lose?

    RADAUG_DATA=DATA .venv/bin/python benchmarks/near_search.py      # pneumoniamnist-28 in DATA; about 5 min
    .venv/bin/python benchmarks/near_search.py --volumes             # blurred noise of 16 x 16 x 16; candidates alone

Known: the 4,708 training images of PneumoniaMNIST, and means of two of them up to 10,000. Shown: 100 training images
changed in each way of benchmarks/near_copies.py, and means of two validation images up to 10,000. Found is a copy whose
own training image is the nearest one, by the search among candidates and by that over all pairs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from near_copies import changed
from scipy.ndimage import gaussian_filter

from pipeline.config.loading import data_root
from pipeline.core.compute import Hardware
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.measures.near_copies import NEAR
from pipeline.privacy.attack import Images
from pipeline.privacy.near_search import NearSearch

SCALING = Scaling(1.0, 0.0, "none", (-1.0, 1.0), "float32")
SIZE, COPIES = 10_000, 100


def _set(images: np.ndarray) -> Images:
    found = images.clip(-1, 1).astype(np.float32)[:, None]
    return Images(DataSet(Path("set"), pd.DataFrame(index=range(len(found))), found, SCALING), np.arange(len(found)))


def _means(images: np.ndarray, number: int, random: np.random.Generator) -> np.ndarray:
    one, two = (images[random.integers(0, len(images), number)] for _ in range(2))
    return (one + two) / 2


def _rows(images: Images, start: int, end: int) -> Images:
    return Images(images.dataset, images.rows[start:end])


def volumes() -> None:
    """The search among candidates alone: all pairs of volumes would take half an hour."""
    random = np.random.default_rng(0)
    clouds = gaussian_filter(random.standard_normal((2 * SIZE, 16, 16, 16), dtype=np.float32), (0, 2, 2, 2))
    clouds *= 0.3 / clouds.std()
    copies = np.roll(clouds[:COPIES], 1, axis=-1) + 0.05 * random.standard_normal((COPIES, 16, 16, 16))
    shown = _set(np.concatenate([copies, clouds[SIZE : 2 * SIZE - COPIES - 500]]))
    began = time.process_time()
    search = NearSearch(_set(clouds[:SIZE]), _set(clouds[-500:]), len(shown), Hardware("cpu", "float32"), 0)
    found = search.among_known(shown)
    spent = time.process_time() - began
    right = np.mean(found.which[:COPIES] == np.arange(COPIES))
    print(f"volumes among candidates: {spent:.0f} s of one core; {right:.0%} of the shifted, grainy copies found")


def main() -> None:
    use_threads(1)
    if "--volumes" in sys.argv:
        volumes()
        return
    random = np.random.default_rng(0)
    pack = np.load(data_root() / "pneumoniamnist-28" / "pneumoniamnist.npz")
    train, val = (pack[f"{part}_images"] / 127.5 - 1 for part in ("train", "val"))
    copies = changed(train[:COPIES], random)
    known = _set(np.concatenate([train, _means(train, SIZE - len(train), random)]))
    planted = np.concatenate([*copies.values()])
    shown = _set(np.concatenate([planted, _means(val, SIZE - len(planted), random)]))
    held_out, hardware = _set(val[:500]), Hardware("cpu", "float32")
    began = time.process_time()
    likely = NearSearch(known, held_out, len(shown), hardware, 0, exact_work=0).among_known(shown)
    print(f"among candidates: {time.process_time() - began:.0f} s of one core")
    exact, spent = [], 0.0
    for start in range(0, SIZE, 1000):  # the whole matrix is 400 MB
        began = time.process_time()
        exact.append(NearSearch(known, held_out, 1000, hardware, 0).among_known(_rows(shown, start, start + 1000)))
        spent += time.process_time() - began
        if not start:
            print(f"over all pairs: about {spent / (1500 / 10500):.0f} s of one core")
    distance, which = (np.concatenate([getattr(one, name) for one in exact]) for name in ("distance", "which"))
    print(
        "| training images | source found among candidates | over all pairs | near copies among candidates | over all |"
    )
    print("|---|---|---|---|---|")
    for number, name in enumerate([*copies, "none"]):
        at = slice(number * COPIES, (number + 1) * COPIES) if name != "none" else slice(len(planted), None)
        own = np.arange(COPIES)
        shares = [f"{np.mean(one[at] == own):.0%}" if name != "none" else "" for one in (likely.which, which)]
        shares += [f"{np.mean(one[at] < NEAR):.1%}" for one in (likely.distance, distance)]
        print(f"| {name} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
