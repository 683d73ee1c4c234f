"""Does a lesion get the diameter that was asked for? GANs conditioned on `diameter_mm` of simulated liver lesions.

Run: .venv/bin/python benchmarks/continuous_condition.py [FAMILY ...] [--num-images N]

A lesion is measured without its mask: voxels that differ from the liver by more than 16 HU after slight smoothing,
holes filled, the component nearest to the centre, as the diameter of a disc of its area. The liver's level is the
median near the image's border, of what is between 60 and 140 HU. What this measure is worth is the table's first
part, the same figures for held-out phantoms, whose diameters are known. Two cautions: all sizes are asked for with the
same z, so the phantoms' nuisances are partly held still and the correlations are not on one scale; and a lesion that
turns darker without growing is measured as larger, so look at the picture and the slope too. The intervals (95 %) come
from drawing z, or phantom lesions, anew.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rows import append
from scipy import ndimage, stats

from flows.plan import plan_experiment
from pipeline.adversarial.fit import fit_config, start
from pipeline.adversarial.loop import sample, train
from pipeline.adversarial.weights import refresh_batch_norm
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import execute
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.cohort.folds import split_ids
from pipeline.nets.conditions import Condition

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "continuous_condition.csv"
PICTURE = ROOT / "docs" / "figures" / "continuous_condition.png"
ATTRIBUTE = "diameter_mm"
COHORT = [
    *(f"data.source.{name}=280" for name in ("cysts", "metastases", "haemangiomas")),
    "data.split.val=0.05",
    "data.split.test=0.25",
    f"gan.attributes=[{ATTRIBUTE}]",
]
SIZES, REPEATS, DRAWS = 9, 40, 1000
CONTRAST_HU, LIVER_HU, BORDER = 16.0, (60.0, 140.0), 4
COLUMNS = [
    "images", "label", "train_images", "num_images", "measured_images", "drawn", "from_mm", "to_mm", "pearson",
    "pearson_low", "pearson_high", "spearman", "spearman_low", "spearman_high", "slope", "bias_mm", "seconds",
]  # fmt: skip
"""`images`: phantoms, or the family; `drawn`: independent z or lesions; `slope`: of measured on true or asked mm."""


def prepared(experiment: Experiment, cache: Path) -> dict[str, Path]:
    directories: dict[str, Path] = {}
    for step in plan_experiment(experiment)[:3]:
        directories[step.name] = execute(step.stage(directories), cache).directory
    return directories


def measured_mm(image: np.ndarray, voxel_mm: float) -> float:
    """Diameter of the central lesion of an image [rows, columns] in HU; 0 if nothing differs from the liver."""
    smooth = ndimage.gaussian_filter(image, 0.7)
    border = np.ones(image.shape, dtype=bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    liver = smooth[border & (smooth > LIVER_HU[0]) & (smooth < LIVER_HU[1])]
    level = float(np.median(liver if liver.size else smooth))
    parts, number = ndimage.label(ndimage.binary_fill_holes(np.abs(smooth - level) > CONTRAST_HU))
    if not number:
        return 0.0
    places = np.argwhere(parts)
    nearest = places[np.square(places - (np.array(image.shape) - 1) / 2).sum(axis=1).argmin()]
    return 2 * float(np.sqrt((parts == parts[tuple(nearest)]).sum() / np.pi)) * voxel_mm


def measured(experiment: Experiment, images: torch.Tensor) -> np.ndarray:
    """Diameters [N] in mm of images [N, 1, rows, columns] in [-1, 1]."""
    crop, window = experiment.data.crop, experiment.data.window
    assert crop is not None and isinstance(window, tuple)
    hu = (images[:, 0].numpy() + 1) / 2 * (window[1] - window[0]) + window[0]
    return np.array([measured_mm(image, crop.size_mm / image.shape[0]) for image in hu])


def agreement(true: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Correlations of `found` with `true` [drawn, sizes], with intervals from a bootstrap over the first axis."""
    random = np.random.default_rng(0)
    rows = random.integers(len(true), size=(DRAWS, len(true)))
    figures: dict[str, Any] = {"measured_images": true.size, "drawn": len(true)}
    for name, of in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        values = [of(true[row].ravel(), found[row].ravel())[0] for row in rows]
        low, high = np.quantile(values, [0.025, 0.975])
        value = of(true.ravel(), found.ravel())[0]
        figures |= {name: f"{value:.3f}", f"{name}_low": f"{low:.3f}", f"{name}_high": f"{high:.3f}"}
    slope = stats.linregress(true.ravel(), found.ravel()).slope
    return figures | {"slope": f"{slope:.2f}", "bias_mm": f"{float((found - true).mean()):.1f}"}


def phantom_rows(experiment: Experiment, dataset: DataSet, rows: np.ndarray) -> list[dict[str, Any]]:
    """What the measure finds on held-out phantoms."""
    true, found = dataset.numbers(rows, [ATTRIBUTE])[:, 0], measured(experiment, dataset.tensor(rows))
    label = dataset.labels(rows, experiment.data.classes).numpy()
    return [
        {"images": "phantoms", "label": name, "from_mm": f"{true[own].min():.1f}", "to_mm": f"{true[own].max():.1f}"}
        | agreement(true[own][:, None], found[own][:, None])
        for number, name in enumerate(experiment.data.classes)
        for own in [label == number]
    ]


def family_rows(
    experiment: Experiment, dataset: DataSet, rows: np.ndarray
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """The table's rows, the sizes asked for in mm, and a sweep of them [classes, sizes, rows, columns] at one z."""
    began = time.monotonic()
    training, sampler = start(fit_config(experiment, 0, 0), dataset, rows)
    train(training, experiment.gan.num_images, lambda _: None)
    seconds, classes = time.monotonic() - began, experiment.data.classes
    generator: Any = training.ema.nets["generator"]
    refresh_batch_norm(generator, sampler, len(classes), seed=0)
    known = dataset.numbers(rows, [ATTRIBUTE])[:, 0]
    asked = np.linspace(np.quantile(known, 0.05), np.quantile(known, 0.95), SIZES)
    standard = torch.from_numpy((asked - known.mean()) / known.std()).float()
    z = torch.randn(REPEATS, generator.latent_dim, generator=torch.Generator().manual_seed(0))
    table, sweeps = [], []
    for number, name in enumerate(classes):
        condition = Condition(
            label=torch.full((REPEATS * SIZES,), number), attributes=standard.repeat(REPEATS)[:, None]
        )
        images = sample(generator, z.repeat_interleave(SIZES, dim=0), condition)
        found = measured(experiment, images).reshape(REPEATS, SIZES)
        sweeps.append(images[:SIZES, 0].numpy())
        facts = {
            "images": experiment.gan.family, "label": name, "train_images": len(rows),
            "num_images": training.num_images, "from_mm": f"{asked[0]:.1f}", "to_mm": f"{asked[-1]:.1f}",
            "seconds": round(seconds),
        }  # fmt: skip
        table.append(facts | agreement(np.tile(asked, (REPEATS, 1)), found))
    return table, asked, np.stack(sweeps)


def draw(sweeps: dict[str, np.ndarray], asked: np.ndarray, classes: tuple[str, ...]) -> None:
    """A row a family and class, a column a diameter, one z throughout."""
    shown = [
        (f"{family}\n{name}", row) for family, sweep in sweeps.items() for name, row in zip(classes, sweep, strict=True)
    ]
    figure = Figure(figsize=(1.1 * len(asked) + 0.8, 1.15 * len(shown) + 0.3), layout="constrained")
    grid = figure.subplots(len(shown), len(asked), squeeze=False)
    for (name, row), line in zip(shown, grid, strict=True):
        for image, axes in zip(row, line, strict=True):
            axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=8)
    for size, axes in zip(asked, grid[0], strict=True):
        axes.set_title(f"{size:.0f} mm", fontsize=9)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=100)


def keep(rows: list[dict[str, Any]]) -> None:
    append(TABLE, rows, COLUMNS)
    for row in rows:
        print(f"{row['images']:<10}{row['label']:<14} r {row['pearson']} [{row['pearson_low']}, {row['pearson_high']}]",
              f" rho {row['spearman']}  slope {row['slope']}  bias {row['bias_mm']} mm", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=["sngan", "vae"])
    parser.add_argument("--num-images", type=int, default=60_000)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / ".cache")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sweeps, asked = {}, np.zeros(SIZES)
    for number, family in enumerate(arguments.families):
        changes = [*COHORT, f"gan.family={family}", f"gan.num_images={arguments.num_images}"]
        experiment = load_experiment(ROOT / "configs" / "demo.yaml", changes)
        directories = prepared(experiment, arguments.cache)
        dataset = open_dataset(directories["prepare"])
        train_rows, test_rows = (dataset.rows(split_ids(directories["split"], 0, part)) for part in ("train", "test"))
        if number == 0:
            keep(phantom_rows(experiment, dataset, test_rows))
        rows, asked, sweeps[family] = family_rows(experiment, dataset, train_rows)
        keep(rows)
    draw(sweeps, asked, experiment.data.classes)


if __name__ == "__main__":
    main()
