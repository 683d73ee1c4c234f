"""Which objectives and regularisers find all of 25 Gaussians? Small perceptrons, trained by the product's own loop.

Twenty-five Gaussians of standard deviation 0.05 stand on a 5 x 5 grid of spacing 2. Of 2,500 samples, one is of high
quality within 3 standard deviations of its nearest centre, and a mode is found if it gets at least 20 of those (as
in VEEGAN, Srivastava et al. 2017, and PacGAN, Lin et al. 2018, who count a mode from its first). Every row has the
same nets, rates, batches and steps. Spectral norm lies on all layers of its discriminator, whose logits are scaled:
the factor is to it what their weights are to the penalties. Without a regulariser, Wasserstein clips its weights.

Run: .venv/bin/python benchmarks/gaussians.py SEED [OBJECTIVE ...]
Rows are added to benchmarks/results/gaussians.csv, and those that are there are not made again. The table is of all of
them, the picture of the points of seed 0, which are kept in runs/gaussians.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from rows import append
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.adversarial import penalties, terms
from pipeline.adversarial.loop import GanTraining, sample, train
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.stepping import Ema, Stepper
from pipeline.adversarial.turns import Context, NoiseTurn
from pipeline.config.augment import AugmentConfig
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Batch
from pipeline.nets.conditions import Condition, Judgement, condition_of

OBJECTIVES: dict[str, tuple[Any, Any]] = {
    "non-saturating": (terms.logistic_discriminator, terms.non_saturating_generator),
    "minimax": (terms.logistic_discriminator, terms.minimax_generator),
    "hinge": (terms.hinge_discriminator, terms.hinge_generator),
    "least squares": (terms.least_squares_discriminator, terms.least_squares_generator),
    "wasserstein": (terms.wasserstein_discriminator, terms.wasserstein_generator),
}
REGULARISERS: dict[str, tuple[Weighted, ...]] = {
    "none": (),
    "gradient penalty": (Weighted("gradient_penalty", penalties.gradient_penalty, 0.1),),
    "R1": (Weighted("r1", penalties.r1_penalty, 0.2),),
    "spectral norm": (),
}
STEPS, BATCH, HIDDEN, RATE, LATENT, EMA = 20_000, 256, 128, 3e-4, 2, 0.9995
CLIP, REACH, SPECTRAL_SCALE = 0.1, 4.0, 30.0
SAMPLES, PER_MODE, SPREAD = 2500, 20, 0.05
CENTRES = torch.tensor(list(product((-4.0, -2.0, 0.0, 2.0, 4.0), repeat=2)))
NO_AUGMENT = AugmentConfig(brightness=0, contrast=0, shift=0, rotate_degrees=0, scale=0, noise=0)
RESULTS = Path(__file__).parent / "results" / "gaussians.csv"
POINTS = Path(__file__).parents[1] / "runs" / "gaussians"
PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "gaussians.png"
FIELDS = ("seed", "objective", "regulariser", "modes", "high_quality", "seconds")


def perceptron(inputs: int, outputs: int, spectral: bool = False) -> nn.Sequential:
    """Three hidden layers."""
    widths = [inputs, HIDDEN, HIDDEN, HIDDEN, outputs]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.Linear(before, after)
        layers += [spectral_norm(linear) if spectral else linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


class PointGenerator(nn.Module):
    latent_dim = LATENT

    def __init__(self) -> None:
        super().__init__()
        self.layers = perceptron(LATENT, 2)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        points: Tensor = REACH * self.layers(z)
        return points


class PointDiscriminator(nn.Module):
    def __init__(self, spectral: bool) -> None:
        super().__init__()
        self.layers = perceptron(2, 1, spectral)
        self.scale = SPECTRAL_SCALE if spectral else 1.0

    def forward(self, points: Tensor, condition: Condition) -> Judgement:
        return Judgement(self.scale * self.layers(points / REACH).squeeze(1))


class Points:
    """An endless stream of fresh points."""

    batch_size = BATCH

    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)

    def next(self) -> Batch:
        centre = CENTRES[torch.randint(len(CENTRES), (BATCH,), generator=self._random)]
        points = centre + SPREAD * torch.randn(BATCH, 2, generator=self._random)
        return Batch(points, torch.zeros(BATCH, dtype=torch.int64))


def recipe(objective: str, regulariser: str) -> Recipe:
    judged, made = OBJECTIVES[objective]
    clip = CLIP if (objective, regulariser) == ("wasserstein", "none") else None
    loss = (Weighted("objective", judged), *REGULARISERS[regulariser])
    discriminator = Player("discriminator", ("discriminator",), loss, OptimizerSettings(RATE, clip=clip))
    generator = Player("generator", ("generator",), (Weighted("objective", made),), OptimizerSettings(RATE))
    return Recipe((discriminator, generator), NoiseTurn)


def fitted(objective: str, regulariser: str, seed: int) -> np.ndarray:
    """2,500 points of a generator trained so."""
    torch.manual_seed(seed)
    nets = {"generator": PointGenerator(), "discriminator": PointDiscriminator(regulariser == "spectral norm")}
    rules = recipe(objective, regulariser)
    draws = Draws(torch.Generator().manual_seed(1000 + seed))
    streams: Any = {"labelled": Points(seed)}
    training = GanTraining(
        recipe=rules,
        context=Context(nets, Augmenter(NO_AUGMENT), draws, nullcontext()),
        stepper=Stepper(nets, rules),
        ema=Ema({"generator": nets["generator"]}, EMA),
        streams=streams,
        total_images=STEPS * BATCH,
    )
    train(training, training.total_images, lambda _: None)
    z = torch.randn(SAMPLES, LATENT, generator=torch.Generator().manual_seed(2000 + seed))
    return sample(training.ema.nets["generator"], z, condition_of(torch.zeros(SAMPLES))).numpy()


def judged(points: np.ndarray) -> tuple[int, float]:
    """Modes found, and the share of high-quality points."""
    distance, nearest = torch.cdist(torch.from_numpy(points), CENTRES).min(dim=1)
    good = distance <= 3 * SPREAD
    counts = torch.bincount(nearest[good], minlength=len(CENTRES))
    return int((counts >= PER_MODE).sum()), float(good.float().mean())


def table(rows: pd.DataFrame) -> str:
    """Markdown: modes of each seed, and the mean share of high quality."""
    lines = ["| objective | " + " | ".join(REGULARISERS) + " |", "|---" * (len(REGULARISERS) + 1) + "|"]
    for objective in rows["objective"].unique():
        cells = []
        for regulariser in REGULARISERS:
            mine = rows[(rows["objective"] == objective) & (rows["regulariser"] == regulariser)]
            modes = ", ".join(str(number) for number in mine["modes"])
            cells.append(f"{modes} ({mine['high_quality'].mean():.0%})")
        lines.append(f"| {objective} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(points: dict[tuple[str, str], np.ndarray]) -> None:
    """Samples of the first seed, a row an objective."""
    objectives = list(dict.fromkeys(objective for objective, _ in points))
    size = (8, 2.3 * len(objectives))
    figure, axes = plt.subplots(len(objectives), len(REGULARISERS), figsize=size, squeeze=False)
    for axis, (case, made) in zip(axes.flat, points.items(), strict=True):
        axis.scatter(CENTRES[:, 0], CENTRES[:, 1], s=28, facecolors="none", edgecolors="0.75", linewidths=0.8)
        axis.scatter(made[:, 0], made[:, 1], s=0.6, color="tab:blue", linewidths=0)
        axis.set_title(f"{case[0]}, {case[1]}: {judged(made)[0]} of 25", fontsize=7)
        axis.set(xlim=(-5, 5), ylim=(-5, 5), xticks=[], yticks=[], aspect="equal")
    figure.tight_layout(pad=0.9)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=100)


def existing() -> set[tuple[int, str, str]]:
    if not RESULTS.is_file():
        return set()
    rows = pd.read_csv(RESULTS, keep_default_na=False)
    return set(zip(rows["seed"], rows["objective"], rows["regulariser"], strict=True))


def main() -> None:
    torch.set_num_threads(1)
    seed, objectives = int(sys.argv[1]), sys.argv[2:] or list(OBJECTIVES)
    for objective, regulariser in product(objectives, REGULARISERS):
        if (seed, objective, regulariser) in existing():
            continue
        started = time.perf_counter()
        made = fitted(objective, regulariser, seed)
        seconds = round(time.perf_counter() - started, 1)
        modes, high_quality = judged(made)
        values = (seed, objective, regulariser, modes, round(high_quality, 4), seconds)
        POINTS.mkdir(parents=True, exist_ok=True)
        np.save(POINTS / f"{seed}-{objective}-{regulariser}.npy", made)
        append(RESULTS, [dict(zip(FIELDS, values, strict=True))], FIELDS)
    kept = {case: POINTS / f"0-{case[0]}-{case[1]}.npy" for case in product(OBJECTIVES, REGULARISERS)}
    whole = [name for name in OBJECTIVES if all(kept[name, regulariser].is_file() for regulariser in REGULARISERS)]
    if whole:
        draw({case: np.load(path) for case, path in kept.items() if case[0] in whole})
    print(table(pd.read_csv(RESULTS, keep_default_na=False)))


if __name__ == "__main__":
    main()
