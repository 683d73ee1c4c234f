"""Stage `privacy`: memorisation. Are synthetic images copies of training images, or nearer to them than to others?

The rate is that of the nearest-neighbour adversarial test (Yale et al., "Generation and evaluation of privacy
preserving synthetic health data", Neurocomputing 416 (2020)): without memory a synthetic image is as often nearest to
a training image as to one of equally many held-out images. Authenticity is that of Alaa et al. ("How Faithful is your
Synthetic Data?", ICML 2022). It finds copying, and proves no privacy; its near copies are part of the audit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.adversarial.families import learns_from_pool
from pipeline.adversarial.pictures import tile
from pipeline.config.section import Section
from pipeline.core.compute import resolve_hardware
from pipeline.core.files import atomic_path
from pipeline.core.layout import CLOSEST_PAIRS, MEMORISATION
from pipeline.core.metrics import MetricRow, write_metrics
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.data.batches.dataset import DataSet, open_dataset, write_table
from pipeline.measures.near_copies import COPY, NEAR, NearCopies
from pipeline.privacy.attack import Images
from pipeline.privacy.cohort import member_splits, rows_in
from pipeline.privacy.copies import find_copies
from pipeline.privacy.near_search import parts_of, plain_distances

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

_DRAWS = 50
_LOOKED_AT = 500
"""Synthetic images, and validation images, whose distances to all training and test images are made, at most."""
_SEARCHED = 10_000
"""Synthetic images among which near copies are looked for, at most."""
_PAIRS, _SHOWN_SIDE = 8, 128
"""Pairs that are drawn, and pixels a side to which smaller images are enlarged."""


class MemorisationConfig(Section):
    classes: tuple[str, ...]
    fold: int
    gan_seed: int
    seed: int
    pool: bool
    device: str = "cpu"


def memorisation_config(experiment: Experiment, fold: int, gan_seed: int) -> MemorisationConfig:
    return MemorisationConfig(
        classes=experiment.data.classes,
        fold=fold,
        gan_seed=gan_seed,
        pool=learns_from_pool(experiment.gan),
        seed=derive_seed(experiment.seed, "memorisation", fold, gan_seed),
        device=resolve_hardware(experiment.compute.device).device,
    )


def run(config: MemorisationConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Compare distances to the fold's training images and to as many held-out (test) images of the same classes.

    A generator that also learned from the unlabelled images may remember those: they count as training images, and
    since they have no class, neither do the others.

    Validation images, which no generator saw, take the synthetic images' place in the control. Of either 500 at most
    are drawn, so that time and memory grow with the training images and not with their square; near copies, which this
    stage alone judges, are looked for among 10,000 synthetic images (`find_copies`), with validation and test images
    as their measure. All other distances are those of plain pixels.
    """
    real, synthetic = open_dataset(inputs["prepare"]), open_dataset(inputs["synthesise"])
    rows = {
        "train": rows_in(real, inputs["split"], config.fold, member_splits(pool=config.pool)),
        "val": _some_validation_rows(real, inputs["split"], config.fold, config.seed),
        "test": rows_in(real, inputs["split"], config.fold, ("test",)),
    }
    random = numpy_generator(config.seed, "draws")
    chosen = np.sort(random.permutation(len(synthetic.images))[:_LOOKED_AT])
    to_train, to_held_out = (plain_distances(synthetic, chosen, real, rows[split]) for split in ("train", "test"))
    labels = {split: real.manifest["label"].iloc[at].to_numpy() for split, at in rows.items()}
    if config.pool:
        labels = {split: np.zeros(len(at)) for split, at in rows.items()}
    rates = nearer_to_training(to_train, to_held_out, labels["train"], labels["test"], random)
    val_to_train, val_to_held_out = (
        plain_distances(real, rows["val"], real, rows[split]) for split in ("train", "test")
    )
    control = nearer_to_training(val_to_train, val_to_held_out, labels["train"], labels["test"], random)
    searched = np.sort(numpy_generator(config.seed, "searched").permutation(len(synthetic.images))[:_SEARCHED])
    found = find_copies(
        Images(synthetic, searched), inputs, config.fold, pool=config.pool, seed=config.seed, device=config.device
    )
    nearest = pd.DataFrame(
        {
            "image_id": synthetic.manifest["image_id"].iloc[chosen].to_numpy(),
            "nearest_train_id": real.manifest["image_id"].iloc[rows["train"][to_train.argmin(axis=1)]].to_numpy(),
            "nearest_train_distance": [f"{value:.6g}" for value in to_train.min(axis=1)],
            "nearest_heldout_distance": [f"{value:.6g}" for value in to_held_out.min(axis=1)],
        }
    )
    write_table(out_dir / MEMORISATION, nearest)
    closest = np.argsort(found.distance, kind="stable")[:_PAIRS]
    pairs = [(int(searched[at]), int(found.which[at])) for at in closest]
    _draw_pairs(out_dir / CLOSEST_PAIRS, synthetic, real, pairs)
    figures = {
        "nearer_to_training_rate": rates.mean(),
        "rate_low": np.quantile(rates, 0.025),
        "rate_high": np.quantile(rates, 0.975),
        "control_rate": control.mean(),
        "baseline_rate": 0.5,
        "distance_ratio": distance_ratio(to_train, to_held_out, labels["train"], labels["test"], random),
        "authenticity": authenticity(to_train, real, rows["train"]),
        "authenticity_control": authenticity(val_to_train, real, rows["train"]),
    } | found.figures()
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    write_metrics(
        out_dir, _metrics(config, rounded, (len(chosen), len(searched)), (len(rows["val"]), found.num_unseen))
    )
    nearness = [round(float(found.distance[at]), 3) for at in closest]
    return Record(
        kind="privacy",
        figures=rounded | {"synthetic_images": len(searched)},
        notes=_notes(found.judged),
        extra={"closest": nearness, "near": NEAR},
    )


def _some_validation_rows(real: DataSet, split: Path, fold: int, seed: int) -> np.ndarray:
    """Where the fold's validation images are, of more than `_LOOKED_AT` so many at random, in their order."""
    rows = rows_in(real, split, fold, ("val",))
    some = numpy_generator(seed, "validation").permutation(len(rows))[:_LOOKED_AT]
    return np.asarray(rows[np.sort(some)])


def nearer_to_training(
    to_train: np.ndarray,
    to_held_out: np.ndarray,
    train_label: np.ndarray,
    held_out_label: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Share of queries whose nearest neighbour is a training image, for `_DRAWS` random draws.

    Each draw takes equally many training and held-out images of every class, and queries with replacement, so that
    the spread of the draws covers both. Ties count half.

    Args:
        to_train, to_held_out: distances [queries, images].
    """
    rates = []
    for near, far in _equally_many(to_train, to_held_out, train_label, held_out_label, random):
        queries = random.integers(0, len(to_train), len(to_train))
        rates.append(np.mean((near < far)[queries] + 0.5 * (near == far)[queries]))
    return np.array(rates)


def distance_ratio(
    to_train: np.ndarray,
    to_held_out: np.ndarray,
    train_label: np.ndarray,
    held_out_label: np.ndarray,
    random: np.random.Generator,
) -> float:
    """Median distance to the nearest training image over that to the nearest held-out one, of equally many of each.

    1 without memory, 0 for copies; the mean of `_DRAWS` draws. Arguments as of `nearer_to_training`.
    """
    draws = _equally_many(to_train, to_held_out, train_label, held_out_label, random)
    return float(np.mean([np.median(near) / max(float(np.median(far)), 1e-12) for near, far in draws]))


def authenticity(to_train: np.ndarray, real: DataSet, rows: np.ndarray) -> float:
    """Share of queries that are further from the training image nearest to them than that one is from other such.

    Args:
        to_train: distances [queries, training images].
        rows: of the training images in `real`.
    """
    nearest = to_train.argmin(axis=1)
    asked, place = np.unique(nearest, return_inverse=True)
    apart = np.full(len(asked), np.inf)
    for part in np.array_split(np.arange(len(rows)), parts_of(len(rows), real)):
        distances = plain_distances(real, rows[asked], real, rows[part])
        distances[asked[:, None] == part[None]] = np.inf  # itself
        apart = np.minimum(apart, distances.min(axis=1))
    return float((to_train.min(axis=1) > apart[place]).mean())


def _equally_many(
    to_train: np.ndarray,
    to_held_out: np.ndarray,
    train_label: np.ndarray,
    held_out_label: np.ndarray,
    random: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`_DRAWS` times the distances [queries] to the nearest of equally many training and held-out images a class."""
    by_train, by_held_out = (np.ascontiguousarray(part.T) for part in (to_train, to_held_out))  # whole rows are drawn
    for _ in range(_DRAWS):
        train, held_out = [], []
        for label in np.unique(train_label):
            members = [np.flatnonzero(labels == label) for labels in (train_label, held_out_label)]
            size = min(map(len, members))
            train.append(random.permutation(members[0])[:size])
            held_out.append(random.permutation(members[1])[:size])
        yield by_train[np.concatenate(train)].min(axis=0), by_held_out[np.concatenate(held_out)].min(axis=0)


def _draw_pairs(path: Path, synthetic: DataSet, real: DataSet, pairs: list[tuple[int, int]]) -> None:
    """Synthetic images above, the training image nearest to each below."""
    above = [tile(synthetic.tensor(np.array([row]))[0].numpy()) for row, _ in pairs]
    below = [tile(real.tensor(np.array([row]))[0].numpy()) for _, row in pairs]
    larger = max(1, _SHOWN_SIDE // max(above[0].shape))
    rows = [
        np.concatenate(
            [np.pad(one.repeat(larger, 0).repeat(larger, 1), 2, constant_values=255) for one in line], axis=1
        )
        for line in (above, below)
    ]
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, format="PNG")


def _metrics(
    config: MemorisationConfig, figures: Mapping[str, float], num: tuple[int, int], num_real: tuple[int, int]
) -> list[MetricRow]:
    num_val, num_unseen = num_real
    row = MetricRow(
        stage="privacy", fold=str(config.fold), gan_seed=str(config.gan_seed), split="synthetic",
        metric="nearer_to_training_rate", value=str(figures["nearer_to_training_rate"]),
        ci_low=str(figures["rate_low"]), ci_high=str(figures["rate_high"]), n_images=str(num[0]),
        detail=f"pixels, root mean square distance, {_DRAWS} draws of equally many training and test images",
    )  # fmt: skip
    control = replace(row, metric="control_rate", value=str(figures["control_rate"]), ci_low="", ci_high="")
    copies = replace(
        row, metric="near_copies", value=str(figures["near_copies"]), ci_low=str(figures["near_copies_low"]),
        ci_high=str(figures["near_copies_high"]), n_images=str(num[1]),
        detail=f"pixels, plain or registered, within {NEAR} of unseen images' median distance to a training image",
    )  # fmt: skip
    ratio = replace(row, metric="distance_ratio", value=str(figures["distance_ratio"]), ci_low="", ci_high="")
    authentic = replace(
        ratio, metric="authenticity", value=str(figures["authenticity"]),
        detail="pixels: further from the nearest training image than that one is from other training images",
    )  # fmt: skip
    authentic_val = replace(
        authentic, metric="authenticity_control", value=str(figures["authenticity_control"]), split="val",
        n_images=str(num_val),
    )  # fmt: skip
    of_unseen = replace(
        copies, metric="near_copies_control", value=str(figures["near_copies_control"]), ci_low="", ci_high="",
        split="unseen", n_images=str(num_unseen),
    )  # fmt: skip
    known = replace(
        copies, metric="near_patients", value=str(figures["near_patients"]), ci_low="", ci_high="",
        n_patients=str(int(figures["near_patients_of"])), detail="training patients of whom some image is a near copy",
    )  # fmt: skip
    others = replace(
        known, metric="near_unseen", value=str(figures["near_unseen"]), n_patients=str(int(figures["near_unseen_of"])),
        detail="unseen patients to whom some image is as near",
    )  # fmt: skip
    certain = replace(
        copies, metric="copies", value=str(figures["copies"]), ci_low="", ci_high="",
        detail=f"near copies within {COPY} of the smallest distance of any image to an unseen patient's",
    )  # fmt: skip
    return [row, control, ratio, authentic, authentic_val, copies, of_unseen, certain, known, others]


def _notes(copies: NearCopies) -> tuple[str, ...]:
    """A sentence where synthetic images are copies."""
    number = int(copies.copies.sum())
    if not number:
        return ()
    return (
        f"{number} of {len(copies.near)} synthetic images are copies of a training image, and "
        f"{int(copies.near.sum())} are near copies ({100 * copies.control:.0f} % of unseen real images are that near "
        "to one).",
    )
