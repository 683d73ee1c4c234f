"""What unlabelled images are worth: 20 labelled chest X-rays a class, with all others unlabelled or left out.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/few_labels.py [FAMILY ...] [--num-images N]

`ssgan` and `s3gan` train on 40 labelled and all other images without their labels; `sngan` on the 40 alone, and, as
`sngan (all labels)`, on everything. FID is that of a class's samples from the held-out images of that class, so a wrong
class costs; `named_rightly` is the mean over classes of the unlabelled images that the discriminator's classes name
rightly (half of them by guessing). Rows are added to benchmarks/results/few_labels.csv.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import append

from flows.plan import plan_experiment
from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.loop import GanTraining, sample, train
from pipeline.adversarial.pictures import save_grid
from pipeline.adversarial.weights import refresh_batch_norm
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import execute
from pipeline.core.compute import resolve_hardware
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.streams import UNLABELLED, StoredImages, stored_images
from pipeline.data.cohort.folds import split_ids
from pipeline.measures.frechet import fid, fid_interval
from pipeline.nets.conditions import condition_of
from pipeline.nets.extractors import EffNetLite0
from pipeline.nets.sizes import ImageShape

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "few_labels.csv"
PICTURES = ROOT / "docs" / "figures" / "few_labels"
ALL = "sngan (all labels)"
LABELS_A_CLASS = 20
COLUMNS = [
    "family", "labelled", "unlabelled", "num_images", "label", "fid", "fid_low", "fid_high", "samples", "extractor",
    "named_rightly", "seconds",
]  # fmt: skip


def prepared(experiment: Experiment, cache: Path) -> tuple[DataSet, dict[str, np.ndarray]]:
    directories: dict[str, Path] = {}
    for step in plan_experiment(experiment)[:3]:
        directories[step.name] = execute(step.stage(directories), cache).directory
    dataset = open_dataset(directories["prepare"])
    return dataset, {part: dataset.rows(split_ids(directories["split"], 0, part)) for part in ("train", "val", "test")}


def told(images: StoredImages, classes: int, family: str) -> StoredImages:
    """What a family is given: few labels and the rest without, few labels alone, or everything."""
    if family == ALL:
        return images
    few = torch.zeros(len(images.label), dtype=torch.bool)
    for number in range(classes):
        few[torch.nonzero(images.label == number)[:LABELS_A_CLASS, 0]] = True
    hidden = replace(images, label=torch.where(few, images.label, UNLABELLED))
    return hidden if family in ("ssgan", "s3gan") else hidden.of_classes(range(classes))


@torch.no_grad()
def named_rightly(training: GanTraining, images: StoredImages, truth: torch.Tensor) -> str:
    """Balanced accuracy of the discriminator's classes on the images without a label, if it has classes."""
    hidden = torch.nonzero(images.label == UNLABELLED)[:, 0]
    found = []
    for rows in hidden.split(256):
        batch = images.batch(rows)
        judgement = training.context.nets["discriminator"].eval()(batch.images, condition_of(batch.label))
        found.append(judgement.class_logits.argmax(dim=1))
    right = torch.cat(found) == truth[hidden]
    shares = [right[truth[hidden] == number].double().mean() for number in truth.unique()]
    return f"{float(torch.stack(shares).mean()):.3f}"


def rows_of(name: str, experiment: Experiment, dataset: DataSet, rows: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Train one family and measure its samples: a row a class."""
    classes, gan, hardware = experiment.data.classes, experiment.gan, resolve_hardware("cpu")
    everything = stored_images(dataset, rows["train"], classes, (), hardware.device)
    images = told(everything, len(classes), name)
    labelled = int((images.label != UNLABELLED).sum())
    began = time.monotonic()
    training = assemble(gan, images, ImageShape(experiment.data.shape, 1, len(classes)), hardware, seed=0)
    train(training, gan.num_images, lambda _: None)
    facts = {
        "family": name, "labelled": labelled, "unlabelled": len(images.label) - labelled,
        "num_images": training.num_images, "seconds": round(time.monotonic() - began),
        "extractor": EffNetLite0().name(len(experiment.data.shape)),
        "named_rightly": named_rightly(training, images, everything.label) if labelled < len(images.label) else "",
    }  # fmt: skip
    generator: Any = training.ema.nets["generator"]
    refresh_batch_norm(generator, ConditionSampler(images.of_classes(range(len(classes)))), len(classes), seed=0)
    held_out = np.concatenate([rows["val"], rows["test"]])
    truth = dataset.labels(held_out, classes).numpy()
    table, shown = [], []
    for number, label in enumerate(classes):
        real = dataset.tensor(held_out[truth == number])
        z = torch.randn(len(real), generator.latent_dim, generator=torch.Generator().manual_seed(number))
        fake = sample(generator, z, condition_of(torch.full((len(real),), number)))
        shown.append(fake[:12].numpy())
        features = EffNetLite0().extract(real).numpy(), EffNetLite0().extract(fake).numpy()
        low, high = fid_interval(*features)
        figures = {"fid": f"{fid(*features):.1f}", "fid_low": f"{low:.1f}", "fid_high": f"{high:.1f}"}
        table.append(facts | figures | {"label": label, "samples": len(real)})
    PICTURES.mkdir(parents=True, exist_ok=True)
    save_grid(PICTURES / f"{name.replace(ALL, 'sngan-all-labels')}.png", np.concatenate(shown), 12)
    return table


def keep(rows: list[dict[str, Any]]) -> None:
    append(TABLE, rows, COLUMNS)
    for row in rows:
        print(
            {name: row[name] for name in ("family", "label", "fid", "fid_low", "fid_high", "named_rightly")}, flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=["sngan", "ssgan", "s3gan", ALL])
    parser.add_argument("--num-images", type=int, default=60_000)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / ".cache")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.families:
        family = name.split()[0]
        changes = ["data.train_per_class=null", f"gan.family={family}", f"gan.num_images={arguments.num_images}"]
        experiment = load_experiment(ROOT / "configs" / "pneumoniamnist.yaml", changes)
        keep(rows_of(name, experiment, *prepared(experiment, arguments.cache)))


if __name__ == "__main__":
    main()
