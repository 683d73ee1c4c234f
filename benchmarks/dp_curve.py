"""What privacy costs: ε against utility, of DP-GANs and DP-MERF, on phantoms and chest X-rays.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/dp_curve.py [STUDY] [METHOD] | table | plot | samples

A cell trains a generator at ε = 1, 3, 10 or infinity (the same training without noise; of `cgan`, gradients are clipped
all the same), makes 500 images of every class, trains the house's classifier on them alone and tests
it on real images (`auroc`, mean over classes of one against the rest), and attacks the images by `distance` with up to
250 training and as many unseen patients (`attack`, an AUROC by patient; 0.5 = nothing is known). Three seeds of
each, and of the classifier on real images (`real`).

- phantoms: 9,000 simulated liver lesions of three classes, one a patient, 16 x 16 pixels of 3 mm; 1,500 others to test.
- pneumonia: PneumoniaMNIST's 4,708 training images, halved to 14 x 14, two classes, and its own test images. It has no
  patient ids: there a patient is an image, and the promise is one of images.

A row is added to benchmarks/results/dp_curve.csv as soon as its cell is done; rows that are there are not made again.
`table` prints what docs/differential-privacy.md has, `plot` draws docs/figures/dp_curve.png, `samples` dp_samples.png.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F  # noqa: N812
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from rows import append
from scipy.stats import t

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import sample, train
from pipeline.adversarial.private.budget import Budget, moves_of, one_look_budget, sampling_budget
from pipeline.config.experiment import ClassifierConfig
from pipeline.config.families import validate_gan
from pipeline.config.gan import GanConfig
from pipeline.config.privacy import PrivacyConfig
from pipeline.core.compute import Hardware
from pipeline.core.files import atomic_path
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.data.phantoms.lesions import CLASSES, lesion_image
from pipeline.measures.classification import weighted_auroc
from pipeline.nets.conditions import condition_of
from pipeline.nets.fourier import SENSITIVITY
from pipeline.nets.sizes import ImageShape
from pipeline.privacy.attack import Candidates, Images, Target
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.outcome import outcome_of
from pipeline.supervised.fit import Share, apply_classifier, fit_classifier

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "dp_curve.csv"
KEPT = ROOT / "runs" / "dp_curve"
PLOT = ROOT / "docs" / "figures" / "dp_curve.png"
SAMPLES_PLOT = ROOT / "docs" / "figures" / "dp_samples.png"
POOL, TRAINED, SIDE, FIELD_MM = 10_500, 9_000, 16, 48
STUDIES, METHODS, EPSILONS, SEEDS = ("phantoms", "pneumonia"), ("cgan", "dp-merf"), (1.0, 3.0, 10.0, np.inf), 3
MOVES, SAMPLES, ATTACKED = 399, 500, 250
COLUMNS = [
    "study", "method", "epsilon", "seed", "spent", "delta", "noise", "rate", "looks", "auroc", "attack", "seconds",
]  # fmt: skip
SCALING = Scaling(1.0, 0.0, "none", (-1.0, 1.0), "float32")


def phantoms() -> np.ndarray:
    """Lesions [POOL, 1, SIDE, SIDE] in [-1, 1], image i of class i mod 3; simulated once."""
    path = KEPT / "phantoms.npy"
    if not path.is_file():
        made = []
        for number in range(POOL):
            lesion = lesion_image(np.random.default_rng(derive_seed(1, "pool", number)), CLASSES[number % 3])
            if not lesion.mask.any():  # a lesion smaller than a voxel
                lesion.mask[48, 48] = 1
            middle = (round(axis.mean()) - FIELD_MM // 2 for axis in np.nonzero(lesion.mask))
            row, col = (int(np.clip(one, 0, 96 - FIELD_MM)) for one in middle)
            patch = torch.from_numpy(lesion.image[row : row + FIELD_MM, col : col + FIELD_MM].copy()).float()
            made.append(F.adaptive_avg_pool2d(patch[None], SIDE).numpy())
        KEPT.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.save(handle, (np.clip(np.stack(made), -60, 200) - 70) / 130)
    return np.load(path).astype(np.float32)


@dataclass(frozen=True)
class Study:
    """Real images to train on and to test on, and what a generator of them is trained with."""

    train: DataSet
    test: DataSet
    classes: tuple[str, ...]


@cache
def study(name: str) -> Study:
    """The images of a study, each of a patient of its own."""
    if name == "phantoms":
        made, label = phantoms(), np.arange(POOL) % 3
        parts = (_set(made[part], label[part], CLASSES) for part in (slice(TRAINED), slice(TRAINED, None)))
        return Study(*parts, CLASSES)
    names = ("normal", "pneumonia")
    pack = np.load(Path(os.environ["RADAUG_DATA"]) / "pneumoniamnist-28" / "pneumoniamnist.npz")
    sides = (
        _set(_halved(pack[f"{part}_images"]) / np.float32(127.5) - 1, pack[f"{part}_labels"][:, 0], names)
        for part in ("train", "test")
    )
    return Study(*sides, names)


def _halved(images: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, [N, 1, side / 2, side / 2]."""
    number, side, _ = images.shape
    return images.reshape(number, 1, side // 2, 2, side // 2, 2).mean(axis=(3, 5), dtype=np.float32)


def _set(images: np.ndarray, label: np.ndarray, classes: tuple[str, ...]) -> DataSet:
    table = pd.DataFrame({"label": np.array(classes)[label]})
    return DataSet(Path("dp_curve"), table, images.astype(np.float32), SCALING)


def settings(method: str, epsilon: float) -> GanConfig:
    """The same for all studies and all ε; chosen before any row was made, and small for the benchmark's sake."""
    own: dict[str, object] = {
        "cgan": {"num_images": MOVES * 128, "discriminator_width": 8, "generator_lr": 5e-4, "discriminator_lr": 1e-3},
        "dp-merf": {"num_images": 300 * 128, "generator_lr": 2e-3},
    }[method]
    dp = {"epsilon": min(epsilon, 1e6), "discriminator_steps": 3, "clip": 1.0}
    shared = {"family": method, "batch_size": 128, "generator_width": 16, "latent_dim": 32, "embedding_dim": 8,
              "ema": 0.98, "augment_probability": 0.0, "dp": dp}  # fmt: skip
    return validate_gan(shared | own)


def budget_of(gan: GanConfig, patients: int, epsilon: float) -> Budget:
    """What is spent; at infinity there is no noise."""
    one_look = FAMILIES[gan.family].private == "embedding"
    if np.isinf(epsilon):
        rate = 1.0 if one_look else gan.batch_size / patients
        return Budget(epsilon, 1 / (10 * patients), patients, 1.0, 0.0, rate, 1 if one_look else moves_of(gan))
    assert gan.dp is not None
    return one_look_budget(gan.dp, patients, SENSITIVITY) if one_look else sampling_budget(gan, patients)


def generated(method: str, epsilon: float, own: Study, seed: int) -> tuple[DataSet, Budget]:
    """The images of one private generator, in equal numbers a class, and what they cost."""
    gan, number = settings(method, epsilon), len(own.train.images)
    budget = budget_of(gan, number, epsilon)
    label = torch.from_numpy(own.train.labels(np.arange(number), own.classes).numpy())
    images = StoredImages(torch.from_numpy(own.train.images), label, SCALING, patient=torch.arange(number))
    shape = ImageShape(images.shape[1:], 1, len(own.classes))
    training = assemble(gan, images, shape, Hardware("cpu", "float32"), derive_seed(seed, method), budget=budget)
    train(training, training.total_images, lambda training: None)
    random = torch.Generator().manual_seed(derive_seed(seed, "samples"))
    asked = torch.arange(SAMPLES * len(own.classes)) % len(own.classes)
    made = [
        sample(training.ema.nets["generator"], torch.randn(len(part), 32, generator=random), condition_of(part))
        for part in asked.split(256)
    ]
    return _set(torch.cat(made).numpy(), asked.numpy(), own.classes), budget


def utility(learned: DataSet, own: Study, seed: int) -> float:
    """AUROC on real test images of a classifier that learned from `learned` alone."""
    hardware = Hardware("cpu", "float32")
    config = ClassifierConfig(steps=200)
    share = Share(learned, np.arange(len(learned.images)))
    net = fit_classifier(config, [share], own.classes, hardware, classical=False, seed=derive_seed(seed, "classifier"))
    rows = np.arange(len(own.test.images))
    scores, truth = apply_classifier(net, own.test, rows, hardware), own.test.labels(rows, own.classes).numpy()
    found = [
        float(weighted_auroc(scores[:, one].astype(float), truth == one, np.ones((1, len(truth))))[0])
        for one in range(len(own.classes))
    ]
    return float(np.mean(found))


def attacked(shown: DataSet, own: Study, seed: int) -> float:
    """AUROC of `distance` for training against unseen patients."""
    random = numpy_generator(seed, "attack")
    most = min(ATTACKED, len(own.test.images))
    rows = [random.permutation(len(one.images))[:most] for one in (own.train, own.test)]
    people = _joined([(own.train, rows[0]), (own.test, rows[1])])
    member = np.arange(2 * most) < most
    label = people.manifest["label"].to_numpy(dtype=str)
    candidates = Candidates(Images(people, np.arange(2 * most)), label, np.arange(2 * most))
    target = Target(Images(shown, np.arange(ATTACKED)), PrivacyConfig(), Hardware("cpu", "float32"), seed)
    score = ATTACKS["distance"].scores(target, candidates)
    return outcome_of(score, member, label, candidates.patient, random, only="auroc").rate("auroc", "patient").value


def _joined(parts: list[tuple[DataSet, np.ndarray]]) -> DataSet:
    table = pd.concat([one.manifest.iloc[rows] for one, rows in parts], ignore_index=True)
    return DataSet(Path("dp_curve"), table, np.concatenate([one.images[rows] for one, rows in parts]), SCALING)


def cell(name: str, method: str, epsilon: float, seed: int) -> dict[str, object]:
    """One row."""
    own, started = study(name), time.perf_counter()
    if method == "real":
        return {"auroc": round(utility(own.train, own, seed), 4)}
    shown, budget = generated(method, epsilon, own, seed)
    np.save(KEPT / f"{name}-{method}-{epsilon:g}-{seed}.npy", shown.images[:24])
    spent = np.inf if np.isinf(epsilon) else budget.spent()["epsilon"]
    found = {"spent": spent, "delta": budget.delta, "noise": budget.noise, "rate": budget.rate, "looks": budget.looks}
    found |= {"auroc": utility(shown, own, seed), "attack": attacked(shown, own, seed)}
    return {key: f"{value:.4g}" for key, value in found.items()} | {"seconds": round(time.perf_counter() - started)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*")
    asked = parser.parse_args().what
    if asked in (["table"], ["plot"]):
        (print_table if asked == ["table"] else plot)(pd.read_csv(TABLE))
        return
    if asked == ["samples"]:
        draw_samples()
        return
    use_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    done = pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)
    there = set(zip(done["study"], done["method"], done["epsilon"], done["seed"], strict=True))
    for seed in range(SEEDS):
        for method, epsilon in [("real", np.inf), *((one, each) for one in METHODS[::-1] for each in EPSILONS)]:
            for name in STUDIES:
                wanted = all(word in (name, method) for word in asked)
                if wanted and (name, method, epsilon, seed) not in there:
                    row = {"study": name, "method": method, "epsilon": epsilon, "seed": seed}
                    append(TABLE, [row | cell(name, method, epsilon, seed)], COLUMNS)


def summed(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and interval (t, 95 %) over seeds."""
    found = table.groupby(["study", "method", "epsilon"])[["auroc", "attack"]].agg(["mean", "std", "count"])
    for what in ("auroc", "attack"):
        found[what, "half"] = t.ppf(0.975, found[what, "count"] - 1) * found[what, "std"] / found[what, "count"] ** 0.5
    return found


def print_table(table: pd.DataFrame) -> None:
    print("| study | method | ε | AUROC (95 % interval) | attack | seeds |\n|---|---|---|---|---|---|")
    for (name, method, epsilon), row in summed(table).iterrows():
        shown = "" if method == "real" else "∞" if np.isinf(epsilon) else f"{epsilon:g}"
        values = " | ".join(_value(row, what) for what in ("auroc", "attack"))
        print(f"| {name} | {method} | {shown} | {values} | {int(row['auroc', 'count'])} |")


def _value(row: pd.Series, what: str) -> str:
    """The mean, with its interval where there are several seeds."""
    mean, half = row[what, "mean"], row[what, "half"]
    return "" if np.isnan(mean) else f"{mean:.3f}" if np.isnan(half) else f"{mean:.3f} ± {half:.3f}"


def plot(table: pd.DataFrame) -> None:
    found = summed(table)
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), STUDIES, strict=True):
        for method, colour in zip(METHODS, ("#0b7285", "#c2410c"), strict=True):
            rows = found.loc[name, method] if (name, method) in found.index.droplevel(2) else found.iloc[:0]
            places = [EPSILONS.index(epsilon) for epsilon in rows.index]
            axes.errorbar(
                places, rows["auroc", "mean"], rows["auroc", "half"], label=method, color=colour, marker="o", capsize=3
            )
        real = found.loc[name, "real"]["auroc", "mean"].mean()
        axes.axhline(real, color="#495057", linestyle="--", linewidth=1, label="real images")
        axes.axhline(0.5, color="#adb5bd", linewidth=1)
        axes.set(title=name, xlabel="ε", ylabel="AUROC on real images", ylim=(0.35, 1.02))
        axes.set_xticks(range(len(EPSILONS)), ["1", "3", "10", "∞"])
    axes.legend(frameon=False, loc="lower right")
    FigureCanvasAgg(figure)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=110)


def draw_samples() -> None:
    """Phantoms that nobody picked: a row of real ones, then one of each trained generator of the first seed."""
    made = [KEPT / f"phantoms-{method}-{epsilon:g}-0.npy" for method in METHODS[::-1] for epsilon in EPSILONS]
    rows = [phantoms(), *(np.load(path) for path in made if path.is_file())]
    picture = np.vstack([np.hstack(list(row[:12, 0])) for row in rows])
    grey = np.uint8((np.clip(picture, -1, 1) + 1) * 127.5)
    Image.fromarray(grey).resize((4 * grey.shape[1], 4 * grey.shape[0]), Image.Resampling.NEAREST).save(SAMPLES_PLOT)


if __name__ == "__main__":
    main()
