"""How many noisy moves of the discriminator for each of the generator? Fixed numbers beside the adaptive one.

Run: RADAUG_DATA=DATA .venv/bin/python benchmarks/dp_pace.py [WAY ...] [--seeds 3] | table    (pneumoniamnist-28)

`cgan` at ε = 10 on PneumoniaMNIST's 4,708 training images (14 x 14, each counts as a patient), with 1,000 moves of the
discriminator whatever the way, so that all cost the same: `gan.dp.discriminator_steps` of 3, 10, 50 and `adaptive`. All
else, and how 1,000 synthetic images are judged by a classifier that learns from them alone, is that of
benchmarks/dp_curve.py. Rows are added to benchmarks/results/dp_pace.csv; those that are there are not made again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import dp_curve
import numpy as np
import pandas as pd
import torch
from rows import append
from scipy.stats import t

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.loop import sample, train
from pipeline.config.families import validate_gan
from pipeline.config.gan import GanConfig
from pipeline.core.compute import Hardware
from pipeline.core.seeds import derive_seed
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import condition_of
from pipeline.nets.sizes import ImageShape

TABLE = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "dp_pace.csv"
WAYS, MOVES, EPSILON = ("3", "10", "50", "adaptive"), 1_000, 10.0
COLUMNS = ["way", "seed", "spent", "noise", "looks", "generator_moves", "last_rate", "told", "auroc", "attack", "cpu_s"]


def settings(way: str) -> GanConfig:
    values = dp_curve.settings("cgan", EPSILON).model_dump()
    dp = {"epsilon": EPSILON, "discriminator_steps": way if way == "adaptive" else int(way)}
    return validate_gan(values | {"num_images": MOVES * values["batch_size"], "dp": dp})


def cell(way: str, seed: int) -> dict[str, object]:
    """One row."""
    own, gan, started = dp_curve.study("pneumonia"), settings(way), time.process_time()
    number = len(own.train.images)
    budget = dp_curve.budget_of(gan, number, EPSILON)
    label = own.train.labels(np.arange(number), own.classes)
    images = StoredImages(torch.from_numpy(own.train.images), label, dp_curve.SCALING, patient=torch.arange(number))
    shape = ImageShape(images.shape[1:], 1, len(own.classes))
    training = assemble(gan, images, shape, Hardware("cpu", "float32"), derive_seed(seed, "pace"), budget=budget)
    rates, told = [], []

    def watch(_: object) -> None:
        rates.append(training.images_per_step // gan.batch_size)
        told.append(float(training.figures["fakes_told"]))

    train(training, training.total_images, watch)
    shown = shown_by(training.ema.nets["generator"], seed)
    last = told[len(told) // 2 :]
    found = {"auroc": dp_curve.utility(shown, own, seed), "attack": dp_curve.attacked(shown, own, seed)}
    found |= {"spent": budget.spent()["epsilon"], "noise": budget.noise, "told": float(np.mean(last))}
    counts = {"looks": budget.looks, "generator_moves": training.step, "last_rate": max(rates)}
    seconds = round(time.process_time() - started)
    return {name: f"{value:.4f}" for name, value in found.items()} | counts | {"cpu_s": seconds}


def shown_by(generator: torch.nn.Module, seed: int) -> DataSet:
    random = torch.Generator().manual_seed(derive_seed(seed, "samples"))
    asked = torch.arange(dp_curve.SAMPLES * 2) % 2
    made = [
        sample(generator, torch.randn(len(part), 32, generator=random), condition_of(part)) for part in asked.split(256)
    ]
    return dp_curve._set(torch.cat(made).numpy(), asked.numpy(), ("normal", "pneumonia"))


def table() -> None:
    found = pd.read_csv(TABLE)
    print("| `discriminator_steps` | seeds | generator's moves | fakes told | AUROC on real test images, mean ± SD |")
    print("|---|---|---|---|---|")
    for way, part in found.groupby("way", sort=False):
        moves = f"{part['generator_moves'].min():,} to {part['generator_moves'].max():,}"
        auroc = f"{part['auroc'].mean():.3f} ± {part['auroc'].std():.3f}"
        print(f"| {way} | {len(part)} | {moves} | {part['told'].mean():.2f} | {auroc} |")
    by_seed = found.pivot(index="seed", columns="way", values="auroc")
    for way in (one for one in WAYS if one != "adaptive" and one in by_seed):
        gain = (by_seed["adaptive"] - by_seed[way]).dropna()
        half = t.ppf(0.975, len(gain) - 1) * gain.std() / len(gain) ** 0.5
        print(f"adaptive less {way}: {gain.mean():+.3f} ({gain.mean() - half:+.3f} to {gain.mean() + half:+.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", default=[*WAYS])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    if asked.ways == ["table"]:
        return table()
    use_threads(1)
    done = pd.read_csv(TABLE, dtype={"way": str}) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)
    there = set(zip(done["way"], done["seed"], strict=True))
    for seed in range(asked.seeds):
        for way in (one for one in asked.ways if (one, seed) not in there):
            append(TABLE, [{"way": way, "seed": seed} | cell(way, seed)], COLUMNS)
    return None


if __name__ == "__main__":
    main()
