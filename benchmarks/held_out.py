"""Do families that look good merely remember? Samples against held-out images, which no generator saw.

For the generators that `families.py` trained: FID and KID of samples against the fold's validation images, beside those
of the training images themselves, and how near samples lie to the training images, as a share of how near validation
images do (1: as near as unseen patients' images; far below 1: copies).

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/held_out.py SETTING FAMILY … [--set key=value …]

Give the changes that `families.py` was given: its generators come from the cache. Rows are added to
benchmarks/results/held_out.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families import ROOT, SETTINGS, experiment_of, features_of, fitted, prepared, real_images
from rows import append

from pipeline.measures.coverage import nearest_distances
from pipeline.measures.frechet import fid, fid_interval
from pipeline.measures.kernel_distance import kid
from pipeline.synthesis.generate import TrainedGenerator

TABLE = ROOT / "benchmarks" / "results" / "held_out.csv"
COLUMNS = ("setting", "family", "fid", "fid_low", "fid_high", "kid", "kid_low", "kid_high", "nearness", "samples")
REAL = "real (train)"


def figures(held_out: np.ndarray, train: np.ndarray, fake: np.ndarray) -> dict[str, str]:
    """Of features; `nearness` is empty for the training images themselves."""
    unseen = float(np.median(nearest_distances(train, held_out)))
    near = "" if fake is train else f"{float(np.median(nearest_distances(train, fake))) / unseen:.3f}"
    fid_low, fid_high = fid_interval(held_out, fake)
    values = (fid(held_out, fake), fid_low, fid_high, *kid(held_out, fake))
    shown = dict(zip(COLUMNS[2:8], (f"{value:.5g}" for value in values), strict=True))
    return shown | {"nearness": near, "samples": f"{len(held_out)}:{len(fake)}"}


def rows_of(setting: str, families: list[str], cache: Path, extra: list[str]) -> list[dict[str, Any]]:
    experiment = experiment_of(setting, families[0], extra)
    directories, _ = prepared(experiment, cache)
    dataset, train_rows = real_images(experiment, directories, "train")
    classes, val_rows = experiment.data.classes, real_images(experiment, directories, "val")[1]
    train, held_out = (features_of(dataset.tensor(rows)) for rows in (train_rows, val_rows))
    found = [{"setting": setting, "family": REAL, **figures(held_out, train, train)}]
    for family in families:
        mine = experiment_of(setting, family, extra)
        directories, steps = prepared(mine, cache)
        generator = TrainedGenerator(fitted(mine, directories, steps, cache).directory, directories)
        num = len(train_rows) // len(classes)
        images = np.stack([image for name in classes for _, image in generator.images(name, num, seed=2)])
        fake = features_of(torch.from_numpy(images))
        found.append({"setting": setting, "family": family, **figures(held_out, train, fake)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=list(SETTINGS))
    parser.add_argument("families", nargs="+")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / ".cache")
    parser.add_argument("--set", dest="extra", action="append", default=[], help="as families.py was given")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = rows_of(arguments.setting, arguments.families, arguments.cache, arguments.extra)
    append(TABLE, rows, COLUMNS)
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
