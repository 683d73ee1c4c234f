"""How many real images is a synthetic set worth? Real-only and augmented classifiers on 10, 25, 50 … images a class.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/low_data_curve.py [CONFIG] [--draws 3] [--set key=value …]

For every number of images, several training sets that share no patient (draws), each with a GAN of its own that saw
nothing else; all are tested on the same patients. The curve of `real+classical` is interpolated (never falling, over
the logarithm of the number): a synthetic set at 25 images that reaches what 40 real ones reach is worth 15. Intervals
are percentiles over the draws, drawn anew with both arms together. Every row looks at the test set.
Rows are added to benchmarks/results/low_data_curve.csv, and those that are there are not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from rows import append
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from flows.plan import plan_experiment
from pipeline.config import Experiment, load_experiment
from pipeline.core.cache import execute
from pipeline.core.errors import DataError
from pipeline.core.files import digest_json

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "low_data_curve.csv"
PICTURE = ROOT / "docs" / "figures" / "low_data_curve.png"
REAL, AUGMENTED = "real+classical", "real+classical+synthetic@1"
SIZES = (10, 25, 50, 100, 200)
ROOMS = ("data", "adversarial", "synthesis", "downstream")
COLUMNS = ["config", "settings", "train_per_class", "draws", "draw", "arm", "auroc", "fits", "test_images"]
BOOTSTRAP = 2000


def experiment_of(config: Path, size: int, draws: int, changes: list[str]) -> Experiment:
    own = [f"data.train_per_class={size}", f"data.split.draws={draws}", f"arms=[{REAL}, {AUGMENTED}]"]
    return load_experiment(config, [*changes, *own])


def settings_of(experiment: Experiment) -> str:
    """Names everything but the number of images and draws, so that only comparable rows share a curve."""
    values = experiment.model_dump(mode="json")
    del values["data"]["train_per_class"], values["data"]["split"]["draws"]
    return digest_json(values)[:8]


def measured(experiment: Experiment, cache: Path) -> pd.DataFrame:
    """Draw, arm, AUROC on the test images (mean over fits)."""
    directories: dict[str, Path] = {}
    for step in plan_experiment(experiment):
        if step.room in ROOMS and step.name != "verdict":
            directories[step.name] = execute(step.stage(directories), cache).directory
    names = [name for name in directories if name.startswith("downstream")]
    table = pd.concat([pd.read_csv(directories[name] / "predictions.csv", dtype={"fold": str}) for name in names])
    test = table[table["split"] == "test"]
    score = test[[f"score_{name}" for name in experiment.data.positive]].sum(axis=1)
    test = test.assign(
        score=score, disease=test["label"].isin(experiment.data.positive), gan=test["gan_seed"].fillna(-1)
    )
    rows = [
        (draw, arm, roc_auc_score(fit["disease"], fit["score"]), len(fit))
        for (draw, arm, _, _), fit in test.groupby(["fold", "arm", "gan", "seed"])
    ]
    fits = pd.DataFrame(rows, columns=["draw", "arm", "auroc", "test_images"])
    return fits.groupby(["draw", "arm"], as_index=False).agg(
        auroc=("auroc", "mean"), fits=("auroc", "size"), test_images=("test_images", "first")
    )


def add_rows(config: Path, size: int, draws: int, changes: list[str], cache: Path) -> str:
    """Measure one number of images unless its rows are there; return the settings' name."""
    experiment = experiment_of(config, size, draws, changes)
    key = {"config": config.stem, "settings": settings_of(experiment), "train_per_class": size, "draws": draws}
    if TABLE.is_file():
        there = pd.read_csv(TABLE)
        if (there[list(key)].astype(str) == pd.Series(key).astype(str)).all(axis=1).any():
            return key["settings"]
    try:
        found = measured(experiment, cache)
    except DataError as error:
        print(f"{size} a class: {error}", flush=True)
        return key["settings"]
    append(TABLE, [key | row | {"auroc": f"{row['auroc']:.5f}"} for row in found.to_dict("records")], COLUMNS)
    return key["settings"]


def reaching(sizes: np.ndarray, curve: np.ndarray, value: float) -> float:
    """The number of real images at which `curve` reaches `value`; the ends of `sizes` where it lies outside."""
    smooth = IsotonicRegression().fit_transform(np.log(sizes), curve)
    rising, first = np.unique(smooth, return_index=True)
    return float(np.exp(np.interp(value, rising, np.log(sizes)[first])))


def worth(table: pd.DataFrame) -> list[dict[str, Any]]:
    """At every number of images: both arms, and how many more real ones do what the synthetic set does."""
    wide = {
        size: rows.pivot(index="draw", columns="arm", values="auroc") for size, rows in table.groupby("train_per_class")
    }
    sizes = np.array(sorted(wide), dtype=float)
    random = np.random.default_rng(0)
    plain = {size: rows.mean() for size, rows in wide.items()}
    drawn = [
        {size: rows.iloc[random.integers(len(rows), size=len(rows))].mean() for size, rows in wide.items()}
        for _ in range(BOOTSTRAP)
    ]

    def extra(means: dict[int, pd.Series], size: int) -> float:
        real, augmented = means[size][REAL], means[size][AUGMENTED]
        curve = np.array([means[int(one)][REAL] for one in sizes])
        return max(reaching(sizes, curve, augmented) - size, 0.0) if augmented > real else 0.0

    best, found = max(rows[REAL] for rows in plain.values()), []
    for size in map(int, sizes):
        value, draws = extra(plain, size), [extra(means, size) for means in drawn]
        low, high = np.quantile(draws, [0.025, 0.975])
        words = "none" if plain[size][AUGMENTED] <= plain[size][REAL] else f"{value:.0f}"
        words = "more than the curve shows" if plain[size][AUGMENTED] > best else words
        found.append({
            "size": size, "draws": len(wide[size]), "real": plain[size][REAL],
            "augmented": plain[size][AUGMENTED], "worth": words, "low": low, "high": high,
        })  # fmt: skip
    return found


def draw_picture(table: pd.DataFrame, name: str) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    for arm, colour, marker in ((REAL, "#4477aa", "o"), (AUGMENTED, "#cc6677", "s")):
        rows = table[table["arm"] == arm]
        axes.scatter(rows["train_per_class"], rows["auroc"], s=14, color=colour, alpha=0.45, marker=marker)
        mean = rows.groupby("train_per_class")["auroc"].mean()
        axes.plot(mean.index, mean, color=colour, marker=marker, label=arm)
    axes.set_xscale("log")
    axes.set_xticks(
        sorted(table["train_per_class"].unique()), labels=[str(n) for n in sorted(table["train_per_class"].unique())]
    )
    axes.minorticks_off()
    axes.set(xlabel="real training images a class", ylabel="AUROC, test images", title=f"{name}: a point is a draw")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=130, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path, default=ROOT / "configs" / "pneumoniamnist.yaml")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / ".cache")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for size in arguments.sizes:
        settings = add_rows(arguments.config, size, arguments.draws, arguments.changes, arguments.cache)
    table = (
        pd.read_csv(TABLE, dtype={"settings": str, "draw": str}) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)
    )
    table = table[(table["config"] == arguments.config.stem) & (table["settings"] == settings)]
    table = table[(table["draws"] == arguments.draws) & table["train_per_class"].isin(arguments.sizes)]
    if table.empty:
        raise SystemExit("Nothing could be measured.")
    print("| real images a class | draws | real+classical | with synthetic | worth, real images a class | 95 % |")
    print("|---|---|---|---|---|---|")
    for row in worth(table):
        print(f"| {row['size']} | {row['draws']} | {row['real']:.3f} | {row['augmented']:.3f} | {row['worth']} | "
              f"{row['low']:.0f} to {row['high']:.0f} |")  # fmt: skip
    draw_picture(table, arguments.config.stem)


if __name__ == "__main__":
    main()
