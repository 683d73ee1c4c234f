"""How near do unpaired translations come to the truth, and do coupled generators make pairs?

The phantoms know both kernels' images of one scan. A CycleGAN is trained on sharp scans of some patients and on soft
scans of OTHER patients; on held-out patients its sharp-to-soft translations are compared with the true soft scans, in
HU, beside the untranslated sharp scans and the Gaussian blur whose width was chosen on those very patients (an oracle).
A CoGAN is trained on the same images; the images of its pairs, blurred so that anatomy is left and noise is not, are
correlated with each other, beside shuffled pairs and the phantoms' own ones. Intervals: 95 %, bootstrap over patients
or pairs.

Run: .venv/bin/python benchmarks/translation.py [cyclegan-2d cogan-2d cyclegan-3d]

Each case is trained on one thread in a few minutes; its rows go to benchmarks/results/translation.csv, its images to
docs/figures/translation-CASE.png.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.loop import GanTraining, sample, train
from pipeline.adversarial.weights import refresh_batch_norm
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.data.phantoms.cohort import CLASSES, lesion_image
from pipeline.nets.conditions import Condition, condition_of
from pipeline.nets.sizes import ImageShape

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "translation.csv"
PICTURES = ROOT / "docs" / "figures"
FIELDS = (
    "case", "num_images", "cpu_seconds", "measure", "method", "value", "low", "high", "number", "detail",
)  # fmt: skip
WINDOW, SIDE, SPACING_MM = (-60.0, 200.0), 32, 1.5
SCALING = Scaling(1.0, 0.0, "HU", WINDOW, "float32")
SHARP, SOFT = 0, 1
LOW_PASS, PAIRS, SHOWN = 2.0, 300, 8
"""Sigma in pixels of the blur before pairs are correlated; pairs; images in a picture."""


@dataclass(frozen=True)
class Case:
    """A training: on `patients` sharp and as many soft scans, tested on `held_out` further patients."""

    family: str
    dims: Literal[2, 3]
    patients: int
    held_out: int
    num_images: int
    settings: dict[str, Any]


CASES = {
    "cyclegan-2d": Case("cyclegan", 2, 400, 200, 9_600, {"batch_size": 4}),
    "cogan-2d": Case("cogan", 2, 400, 200, 40_000, {}),
    "cyclegan-3d": Case(
        "cyclegan", 3, 60, 30, 800, {"batch_size": 2, "generator_width": 16, "discriminator_width": 16}
    ),
}


def scans(patients: range, dims: Literal[2, 3]) -> np.ndarray:
    """Both kernels' images of one lesion a patient, [N, 2 (sharp, soft), *spatial] in HU, 48 mm around the lesion."""
    found = []
    for number in patients:
        random = np.random.default_rng([11, number])
        lesion = lesion_image(random, CLASSES[number % 3], dims, spacing_mm=SPACING_MM)
        centre = np.argwhere(lesion.mask).mean(axis=0) if lesion.mask.any() else np.array(lesion.mask.shape) / 2
        start = np.clip(np.round(centre - SIDE / 2), 0, np.array(lesion.mask.shape) - SIDE).astype(int)
        box = tuple(slice(first, first + SIDE) for first in start)
        found.append(np.stack([lesion.sharp[box], lesion.image[box]]))
    return np.clip(np.stack(found), *WINDOW).astype(np.float32)


def stored(pairs: np.ndarray) -> StoredImages:
    """The first half's sharp and the second half's soft scans: no patient gives both."""
    half = len(pairs) // 2
    images = np.concatenate([pairs[:half, [SHARP]], pairs[half:, [SOFT]]])
    return StoredImages(torch.from_numpy(images), torch.arange(len(images)) // half, SCALING)


def trained(case: Case, images: StoredImages) -> GanTraining:
    gan = validate_gan({"family": case.family, "num_images": case.num_images, **case.settings})
    shape = ImageShape((SIDE,) * case.dims, 1, 2, positive=(SOFT,))
    training = assemble(gan, images, shape, Hardware("cpu", "float32"), seed=0)
    train(training, case.num_images, lambda _: None)
    refresh_batch_norm(training.ema.nets["generator"], ConditionSampler(images), 2, seed=0)
    return training


Row = dict[str, Any]
Statistic = Callable[[np.ndarray], float]


def bootstrap(values: np.ndarray, statistic: Statistic) -> Row:
    """A statistic of one value a patient, with its interval over patients."""
    random = np.random.default_rng(0)
    drawn = [statistic(values[random.integers(len(values), size=len(values))]) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    numbers = {"value": statistic(values), "low": low, "high": high}
    return {name: f"{number:.3f}" for name, number in numbers.items()} | {"number": len(values)}


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def root_mean(values: np.ndarray) -> float:
    return float(np.sqrt(values.mean()))


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([gaussian_filter(image, sigma, mode="nearest") for image in images])


def translation_rows(training: GanTraining, held_out: np.ndarray) -> tuple[list[Row], dict[str, np.ndarray]]:
    """Distances of three methods from the true soft scans, and the images."""
    sharp, soft = held_out[:, SHARP], held_out[:, SOFT]
    source = SCALING.to_model(torch.from_numpy(sharp[:, None]))
    generator = training.ema.nets["generator"]
    label = torch.full((len(source),), SOFT)
    translated = sample(generator, torch.zeros(len(source), generator.latent_dim), Condition(label, source=source))  # type: ignore[arg-type]
    widths = np.arange(0.2, 1.6, 0.05)
    sigma = float(widths[np.argmin([np.abs(blurred(sharp, width) - soft).mean() for width in widths])])
    images = {
        "sharp": sharp,
        "blur": blurred(sharp, sigma),
        "cyclegan": SCALING.to_physical(translated.numpy())[:, 0],
        "soft (true)": soft,
    }
    axes = tuple(range(1, sharp.ndim))
    rows, errors = [], {}
    for method in ("sharp", "blur", "cyclegan"):
        distance = images[method] - soft
        errors[method] = np.abs(distance).mean(axis=axes)
        detail = f"oracle sigma {sigma:.2f} px" if method == "blur" else ""
        rows.append({"measure": "mae_hu", "method": method, "detail": detail, **bootstrap(errors[method], mean)})
        squared = bootstrap(np.square(distance).mean(axis=axes), root_mean)
        rows.append({"measure": "rmse_hu", "method": method, "detail": detail, **squared})
    for other in ("sharp", "blur"):
        difference = bootstrap(errors["cyclegan"] - errors[other], mean)
        rows.append({"measure": "mae_hu", "method": f"cyclegan - {other}", "detail": "paired", **difference})
    return rows, images


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's r of each pair of blurred images."""
    flat = [blurred(images, LOW_PASS).reshape(len(images), -1) for images in (first, second)]
    return np.array([np.corrcoef(one, other)[0, 1] for one, other in zip(*flat, strict=True)])


def pair_rows(training: GanTraining, held_out: np.ndarray) -> tuple[list[Row], dict[str, np.ndarray]]:
    """How alike the images of pairs are: from one z, from different ones, and of real patients."""
    generator: Any = training.ema.nets["generator"].eval()
    z = torch.randn(PAIRS, generator.latent_dim, generator=torch.Generator().manual_seed(1))
    asked = [condition_of(torch.full((PAIRS,), domain)) for domain in (SHARP, SOFT)]
    with torch.no_grad():
        sharp, soft = (SCALING.to_physical(images.numpy())[:, 0] for images in generator.pair(z, *asked))
    pairs = {
        "one z": (sharp, soft),
        "different z": (sharp, np.roll(soft, 1, axis=0)),
        "one patient (real)": (held_out[:, SHARP], held_out[:, SOFT]),
        "different patients (real)": (held_out[:, SHARP], np.roll(held_out[:, SOFT], 3, axis=0)),
    }
    detail = f"after a blur of {LOW_PASS} px"
    rows = [
        {"measure": "correlation", "method": name, "detail": detail, **bootstrap(correlations(*both), mean)}
        for name, both in pairs.items()
    ]
    shown = {"sharp (CoGAN)": sharp, "soft (CoGAN)": soft}
    return rows, shown | {"sharp (real)": held_out[:, SHARP], "soft (real)": held_out[:, SOFT]}


def save_picture(name: str, images: dict[str, np.ndarray]) -> None:
    figure, axes = plt.subplots(len(images), SHOWN, figsize=(SHOWN * 1.2, len(images) * 1.25))
    for row, (title, several) in zip(axes, images.items(), strict=True):
        for axis, image in zip(row, several, strict=False):
            axis.imshow(image if image.ndim == 2 else image[..., SIDE // 2].T, cmap="gray", vmin=-60, vmax=200)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(title, fontsize=8)
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.tight_layout(pad=0.3)
    figure.savefig(PICTURES / f"translation-{name}.png", dpi=90)
    plt.close(figure)


def append(name: str, rows: list[Row], facts: Row) -> None:
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    known = list(csv.DictReader(TABLE.open())) if TABLE.is_file() else []
    with TABLE.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in known if row["case"] != name)
        writer.writerows({"case": name, **facts, **row} for row in rows)


def run(name: str) -> None:
    case = CASES[name]
    torch.set_num_threads(1)
    images = stored(scans(range(2 * case.patients), case.dims))
    held_out = scans(range(2 * case.patients, 2 * case.patients + case.held_out), case.dims)
    started = time.process_time()
    training = trained(case, images)
    facts = {"num_images": training.num_images, "cpu_seconds": round(time.process_time() - started)}
    measured = translation_rows if case.family == "cyclegan" else pair_rows
    rows, shown = measured(training, held_out)
    append(name, rows, facts)
    save_picture(name, {title: several[:SHOWN] for title, several in shown.items()})
    for row in rows:
        interval = f"{row['value']:>8} ({row['low']} to {row['high']}), n = {row['number']}"
        print(f"{name:<12} {row['measure']:<12} {row['method']:<26} {interval} {row['detail']}", flush=True)


def main() -> None:
    for name in sys.argv[1:] or list(CASES):
        run(name)


if __name__ == "__main__":
    main()
