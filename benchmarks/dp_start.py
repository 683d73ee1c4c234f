"""Does a start from a public set's GAN help a private one of few patients? PneumoniaMNIST's children, from adults.

Run: RADAUG_DATA=DATA .venv/bin/python benchmarks/dp_start.py [--seeds 5] | table    (pneumoniamnist-28, nih-cxr…)

750 training images of PneumoniaMNIST (14 x 14, each counts as a patient) are private, at ε = 10; public are the chest
X-rays of adults of `nih-cxr-normal-vs-pneumonia-256`, in the same two classes. Ways: `fresh`: `cgan` under `gan.dp`
from random weights; `started`: from a `cgan` of the public images, trained without noise for as many moves as that
took; `public`: that one as it is, which has seen no private image; `dp-merf`; and `real`, the 750 images themselves.
Settings are those of benchmarks/dp_curve.py, the larger budget of noise apart. A classifier learns from 1,000 synthetic
images alone and is judged on PneumoniaMNIST's test images. Rows are added to benchmarks/results/dp_start.csv.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import dp_curve
import numpy as np
import pandas as pd
import torch
from audit_calibration import xrays
from rows import append
from torch import nn

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.loop import sample, train
from pipeline.adversarial.private.budget import Budget
from pipeline.adversarial.starting import Start
from pipeline.adversarial.weights import save_nets
from pipeline.core.compute import Hardware
from pipeline.core.files import read_json
from pipeline.core.layout import MODEL
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import condition_of
from pipeline.nets.sizes import ImageShape

TABLE = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "dp_start.csv"
PRIVATE, EPSILON, CLASSES = 750, 10.0, ("normal", "pneumonia")
WAYS = ("real", "public", "fresh", "started", "dp-merf")
COLUMNS = ["way", "seed", "spent", "noise", "auroc", "attack", "seconds"]
CPU = Hardware("cpu", "float32")


def public_images() -> tuple[np.ndarray, np.ndarray]:
    """Adults' X-rays [N, 1, 14, 14] in [-1, 1], and whether they have pneumonia."""
    cohort = xrays()
    wide = np.pad(cohort.images, ((0, 0), (0, 0), (5, 5), (5, 5)), mode="edge")  # 42 = 14 x 3
    images = wide.reshape(len(wide), 1, 14, 3, 14, 3).mean(axis=(3, 5))
    return images.astype(np.float32), (cohort.label == "pneumonia").astype(int)


def private_study(seed: int) -> dp_curve.Study:
    whole = dp_curve.study("pneumonia")
    rows = np.sort(numpy_generator(seed, "private").permutation(len(whole.train.images))[:PRIVATE])
    images = np.asarray(whole.train.images)[rows]
    table = whole.train.manifest.iloc[rows].reset_index(drop=True)
    part = DataSet(whole.train.root, table, images, dp_curve.SCALING)
    return dp_curve.Study(part, whole.test, CLASSES)


def trained(
    images: np.ndarray, label: np.ndarray, seed: int, epsilon: float, start: Start | None = None
) -> tuple[dict[str, nn.Module], Budget]:
    """The nets after a training at this ε, and the budget."""
    gan = dp_curve.settings("cgan", epsilon)
    budget = dp_curve.budget_of(gan, len(images), epsilon)
    stored = StoredImages(
        torch.from_numpy(images), torch.from_numpy(label), dp_curve.SCALING, patient=torch.arange(len(images))
    )
    shape = ImageShape(stored.shape[1:], 1, len(CLASSES))
    training = assemble(gan, stored, shape, CPU, derive_seed(seed, "cgan"), budget=budget, start=start)
    train(training, training.total_images, lambda training: None)
    return {**training.context.nets, **training.ema.nets}, budget


def start_of(nets: dict[str, nn.Module], place: Path) -> Start:
    described = {"gan": dp_curve.settings("cgan", np.inf).model_dump(mode="json")}
    save_nets(place, {name: nets[name] for name in ("generator", "discriminator")}, described)
    return Start(place=str(place), split="", fold=0, pool=False, weights=read_json(place / MODEL)["weights"])


def shown_by(generator: nn.Module, seed: int) -> DataSet:
    random = torch.Generator().manual_seed(derive_seed(seed, "samples"))
    asked = torch.arange(dp_curve.SAMPLES * 2) % 2
    made = [
        sample(generator, torch.randn(len(part), 32, generator=random), condition_of(part)) for part in asked.split(256)
    ]
    return dp_curve._set(torch.cat(made).numpy(), asked.numpy(), CLASSES)


def cell(way: str, seed: int) -> dict[str, object]:
    own, started = private_study(seed), time.perf_counter()
    if way == "real":
        return {"auroc": f"{dp_curve.utility(own.train, own, seed):.4f}"}
    if way == "dp-merf":
        shown, budget = dp_curve.generated("dp-merf", EPSILON, own, seed)
    else:
        label = own.train.labels(np.arange(PRIVATE), CLASSES).numpy()
        nets, budget = (None, None) if way == "fresh" else trained(*public_images(), seed, np.inf)
        with TemporaryDirectory() as place:
            if way != "public":
                start = None if nets is None else start_of(nets, Path(place))
                nets, budget = trained(np.asarray(own.train.images), label, seed, EPSILON, start)
        shown = shown_by(nets["generator"], seed)
    found = {"auroc": dp_curve.utility(shown, own, seed), "attack": dp_curve.attacked(shown, own, seed)}
    if way != "public":
        found |= {"spent": budget.spent()["epsilon"], "noise": budget.noise}
    return {name: f"{value:.4f}" for name, value in found.items()} | {"seconds": round(time.perf_counter() - started)}


def table() -> None:
    print("| way | seeds | ε | AUROC on real test images, mean ± SD | AUROC of `distance` |")
    print("|---|---|---|---|---|")
    for way, part in pd.read_csv(TABLE).groupby("way", sort=False):
        spent = "" if part["spent"].isna().all() else f"{part['spent'].max():.2f}"
        attack = "" if part["attack"].isna().all() else f"{part['attack'].mean():.2f}"
        print(f"| {way} | {len(part)} | {spent} | {part['auroc'].mean():.3f} ± {part['auroc'].std():.3f} | {attack} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["table"])
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    if asked.what == "table":
        return table()
    use_threads(1)
    for seed in range(asked.seeds):
        for way in WAYS:
            append(TABLE, [{"way": way, "seed": seed} | cell(way, seed)], COLUMNS)
    return None


if __name__ == "__main__":
    main()
