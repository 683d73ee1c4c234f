"""Every family on the same images with the same budget: FID and KID with intervals, time, memory and a sample grid.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/families.py xray-32 [FAMILY ...] [--jobs 2]

Each row is trained in a process of its own and added to benchmarks/results/families.csv as it is finished; rows that
are there are not made again. `xray-32-floor` adds what the figures are for real, blank and shuffled images.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import append

from flows.plan import Step, plan_experiment
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.gan_cost import noise_training, shape_of_nets
from pipeline.adversarial.loop import train
from pipeline.adversarial.pictures import save_grid
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import Execution, execute
from pipeline.core.compute import Hardware
from pipeline.core.cost import FlopCount
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.cohort.folds import split_ids
from pipeline.measures.coverage import prdc
from pipeline.measures.frechet import fid, fid_interval
from pipeline.measures.kernel_distance import kid
from pipeline.nets.extractors import EffNetLite0
from pipeline.synthesis.generate import TrainedGenerator

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "families.csv"
PICTURES = ROOT / "docs" / "figures" / "families"
XRAY_64 = ["gan.generator_width=16", "gan.discriminator_width=16", "gan.num_images=40000"]
LIVER = [f"data.source.{name}=300" for name in ("cysts", "metastases", "haemangiomas")]
LIVER_3D = [*LIVER, "gan.watch.checks=4", "gan.batch_size=8", "gan.generator_width=8", "gan.discriminator_width=8"]
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "xray-32": ("pneumoniamnist.yaml", ["data.train_per_class=null", "gan.num_images=60000"]),
    "xray-64": ("nih-cxr.yaml", XRAY_64),
    "xray-64-100": ("nih-cxr.yaml", [*XRAY_64, "data.train_per_class=50"]),
    "liver-32": ("demo.yaml", [*LIVER, "gan.num_images=60000"]),
    "liver-3d-32": ("demo-3d.yaml", [*LIVER_3D, "gan.num_images=6000"]),
    "liver-3d-64": ("demo-3d.yaml", [*LIVER_3D, "data.spatial_size=64", "gan.num_images=800"]),
    "liver-3d-128": ("demo-3d.yaml", [*LIVER_3D, "data.spatial_size=128", "gan.batch_size=4", "gan.num_images=16"]),
}
COLUMNS = [
    "setting", "family", "num_images", "train_images", "gflop_per_image", "seconds", "images_per_s", "peak_mib", "fid",
    "fid_low", "fid_high", "kid", "kid_low", "kid_high", "coverage", "samples", "extractor", "rollbacks", "device",
]  # fmt: skip
MOST = 500
"""Images a class that figures are made from, at most."""


def experiment_of(setting: str, family: str, extra: list[str]) -> Experiment:
    config, changes = SETTINGS[setting]
    changes = [f"gan.family={family}", *changes, *extra, "gan.snapshots=2", "gan.checkpoints=2"]
    return load_experiment(ROOT / "configs" / config, changes)


def prepared(experiment: Experiment, cache: Path) -> tuple[dict[str, Path], tuple[Step, ...]]:
    """Directories of the data steps, and all steps."""
    steps = plan_experiment(experiment)
    directories: dict[str, Path] = {}
    for step in steps[:3]:
        directories[step.name] = execute(step.stage(directories), cache).directory
    return directories, steps


def real_images(experiment: Experiment, directories: dict[str, Path], split: str) -> tuple[DataSet, np.ndarray]:
    """Rows of a split, equally many of every class, at most `MOST`."""
    dataset = open_dataset(directories["prepare"])
    rows = dataset.rows(split_ids(directories["split"], 0, split))
    label = dataset.manifest["label"].iloc[rows].to_numpy()
    size = min(MOST, *(int((label == name).sum()) for name in experiment.data.classes))
    random = np.random.default_rng(0)
    chosen = [random.permutation(rows[label == name])[:size] for name in experiment.data.classes]
    return dataset, np.concatenate(chosen)


def features_of(images: torch.Tensor) -> np.ndarray:
    return EffNetLite0().extract(images).numpy()


def figures(real: np.ndarray, fake: np.ndarray, dims: int) -> dict[str, Any]:
    """FID, KID and coverage of two sets of features."""
    fid_low, fid_high = fid_interval(real, fake)
    distance, kid_low, kid_high = kid(real, fake)
    numbers = {
        "fid": fid(real, fake), "fid_low": fid_low, "fid_high": fid_high, "kid": distance, "kid_low": kid_low,
        "kid_high": kid_high, "coverage": prdc(real, fake).coverage,
    }  # fmt: skip
    rounded = {name: f"{value:.5g}" for name, value in numbers.items()}
    return rounded | {"samples": f"{len(real)}:{len(fake)}", "extractor": EffNetLite0().name(dims)}


def gflop(experiment: Experiment) -> float:
    """Of a training step, over the images that it shows."""
    training = noise_training(experiment.gan, shape_of_nets(experiment), Hardware("cpu", "float32"))
    with FlopCount() as counter:
        train(training, training.images_per_step, lambda _: None)
    return counter.total / training.images_per_step / 1e9


def fitted(experiment: Experiment, directories: dict[str, Path], steps: tuple[Step, ...], cache: Path) -> Execution:
    step = next(step for step in steps if step.kind == "fit-gan")
    return execute(step.stage(directories), cache)


def make_row(setting: str, family: str, cache: Path, extra: list[str]) -> dict[str, Any]:
    """Train one family on one setting and measure its samples."""
    torch.set_num_threads(1)
    experiment = experiment_of(setting, family, extra)
    directories, steps = prepared(experiment, cache)
    found = fitted(experiment, directories, steps, cache)
    record = found.record
    row: dict[str, Any] = {
        "setting": setting, "family": family, "num_images": record.figures["num_images"],
        "train_images": record.figures["train_images"], "gflop_per_image": f"{gflop(experiment):.3g}",
        "seconds": round(record.wall_s), "images_per_s": record.figures["images_per_s"],
        "peak_mib": round(record.peak_mib), "rollbacks": record.figures.get("rollbacks", ""), "device": record.device,
    }  # fmt: skip
    generator = TrainedGenerator(found.directory, directories)
    classes, dims = experiment.data.classes, experiment.data.spatial_dims
    shown = [image for name in classes for _, image in generator.images(name, 8, seed=1)]
    PICTURES.mkdir(parents=True, exist_ok=True)
    save_grid(PICTURES / f"{setting}-{family}.png", np.stack(shown), 8)
    if "source" in FAMILIES[family].needs or "mask" in FAMILIES[family].needs or setting == "liver-3d-128":
        return row
    dataset, rows = real_images(experiment, directories, "train")
    num = len(rows) // len(classes)
    fake = np.stack([image for name in classes for _, image in generator.images(name, num, seed=2)])
    real = features_of(dataset.tensor(rows))
    return row | figures(real, features_of(torch.from_numpy(fake)), dims)


def make_floor(setting: str, cache: Path) -> list[dict[str, Any]]:
    """What the figures are for held-out real images, for blank ones and for training images with shuffled pixels."""
    torch.set_num_threads(1)
    experiment = experiment_of(setting, "sngan", [])
    directories, _ = prepared(experiment, cache)
    dataset, rows = real_images(experiment, directories, "train")
    images = dataset.tensor(rows)
    val_rows = real_images(experiment, directories, "val")[1]
    order = torch.from_numpy(np.random.default_rng(1).permutation(images[0, 0].numel()))
    others = {
        "real (val)": dataset.tensor(val_rows),
        "blank": torch.full_like(images, float(images.mean())),
        "shuffled pixels": images.flatten(2)[..., order].view_as(images),
    }
    real = features_of(images)
    key = {"setting": setting, "train_images": len(rows)}
    dims = experiment.data.spatial_dims
    save_grid(PICTURES / f"{setting}-real.png", _eight_a_class(images.numpy(), len(experiment.data.classes)), 8)
    return [key | {"family": name} | figures(real, features_of(part), dims) for name, part in others.items()]


def _eight_a_class(images: np.ndarray, classes: int) -> np.ndarray:
    size = len(images) // classes
    return np.concatenate([images[number * size : number * size + 8] for number in range(classes)])


def existing() -> set[tuple[str, str]]:
    if not TABLE.is_file():
        return set()
    with TABLE.open(newline="", encoding="utf-8") as handle:
        return {(row["setting"], row["family"]) for row in csv.DictReader(handle)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", choices=[*SETTINGS, *(f"{name}-floor" for name in SETTINGS)])
    parser.add_argument("families", nargs="*")
    parser.add_argument("--jobs", type=int, default=1, help="rows made side by side, one thread each")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / ".cache")
    parser.add_argument("--set", dest="extra", action="append", default=[], help="key=value over the setting")
    parser.add_argument("--one", action="store_true", help="make the row in this process")
    arguments = parser.parse_args()
    if arguments.setting.endswith("-floor"):
        for row in make_floor(arguments.setting.removesuffix("-floor"), arguments.cache):
            append(TABLE, [row], COLUMNS)
        return
    if arguments.one:
        row = make_row(arguments.setting, arguments.families[0], arguments.cache, arguments.extra)
        append(TABLE, [row], COLUMNS)
        return
    names = [name for name in arguments.families or FAMILIES if (arguments.setting, name) not in existing()]
    changes = [token for change in arguments.extra for token in ("--set", change)]

    def start(name: str) -> None:
        command = [sys.executable, __file__, arguments.setting, name, "--one", "--cache", str(arguments.cache)]
        began = time.monotonic()
        done = subprocess.run([*command, *changes], check=False)
        print(f"{arguments.setting} {name}: exit {done.returncode}, {time.monotonic() - began:.0f} s", flush=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(start, names))


if __name__ == "__main__":
    main()
