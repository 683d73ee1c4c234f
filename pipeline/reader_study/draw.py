"""Which images a study shows: held-out real ones and synthetic ones, drawn by lot, classes and kinds in balance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.errors import UserError
from pipeline.core.files import dangling_link
from pipeline.core.layout import CONFIG, RECORD, STAGES, stage_name
from pipeline.core.patients import patient_units
from pipeline.core.seeds import numpy_generator
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.scaling import Scaling
from pipeline.data.cohort.folds import split_ids
from pipeline.reader_study.files import REAL, SYNTHETIC
from pipeline.release.images import pixel_digest

FEWEST = 8


@dataclass(frozen=True)
class Drawn:
    """The images of a study in the order of their numbers.

    Attributes:
        table: columns number, origin, label, image_id and patient_id (both empty for synthetic images), row.
        sets: the data set that `row` counts in, by origin.
        released: all of them lie in a release pack.
    """

    experiment: Experiment
    table: pd.DataFrame
    sets: Mapping[str, DataSet]
    released: bool = False

    def image(self, place: int) -> tuple[np.ndarray, Scaling]:
        """The image [C, *spatial] with this place in the table, in stored numbers, and how to read these."""
        dataset = self.sets[self.table["origin"].iloc[place]]
        return dataset.images[self.table["row"].iloc[place]], dataset.scaling


def draw_images(run_dir: Path, images: int, seed: int, released: frozenset[str] | None = None) -> Drawn:
    """Half real, half synthetic images, of each class as many of either kind.

    Real are test images of the fold whose generator the run's `release:` names, which neither it nor any choice saw;
    first one a patient. Synthetic are of the set that this generator made.

    Args:
        released: digests of the images of a release pack: then only these are drawn, and no real one.

    Raises:
        UserError: the run lacks a stage, or has fewer test images.
    """
    if images < FEWEST or images % 2:
        raise UserError(f"--images {images}: give an even number from {FEWEST} on.")
    experiment = load_experiment(run_dir / CONFIG)
    release = experiment.release
    synthetic = open_dataset(_stage(run_dir, stage_name("synthesise", release.fold, release.gan_seed)))
    random = numpy_generator(seed, "reader study", experiment.name)
    if released is None:
        real = open_dataset(_stage(run_dir, "prepare"))
        held_out = real.rows(split_ids(_stage(run_dir, "split"), release.fold, "test"))
        sets, rows = {REAL: real, SYNTHETIC: synthetic}, {REAL: held_out, SYNTHETIC: np.arange(len(synthetic.images))}
    else:
        own = [row for row, image in enumerate(synthetic.images[:, 0]) if pixel_digest(image) in released]
        sets, rows = {SYNTHETIC: synthetic}, {SYNTHETIC: np.array(own, dtype=np.int64)}
    lots = {origin: _lot(sets[origin].manifest, rows[origin], random) for origin in sets}
    there = {label: min(int((lot == label).sum()) for lot in lots.values()) for label in experiment.data.classes}
    numbers = _balanced(there, images, len(lots))
    chosen = [
        (origin, label, int(row))
        for label, number in numbers.items()
        for origin, lot in lots.items()
        for row in lot.index[lot == label][:number]
    ]
    return Drawn(experiment, _numbered(chosen, sets, random), sets, released is not None)


def _stage(run_dir: Path, name: str) -> Path:
    place = run_dir / STAGES / name
    if (place / RECORD).is_file():
        return place
    if dangling_link(place) is not None:
        raise UserError(f"{run_dir}: {STAGES}/{name} is a link that leads to nothing. Copy a run with `radaug export`.")
    raise UserError(f"{run_dir}: holds no {STAGES}/{name}. Let `radaug run` finish first.")


def _lot(manifest: pd.DataFrame, rows: np.ndarray, random: np.random.Generator) -> pd.Series:
    """Labels of `rows`, by row, in random order, those of patients who are there already last."""
    drawn = random.permutation(rows)
    again = patient_units(manifest.iloc[drawn]).duplicated().to_numpy()
    return manifest["label"].iloc[[*drawn[~again], *drawn[again]]]


def _balanced(there: Mapping[str, int], images: int, kinds: int) -> dict[str, int]:
    """How many images of each class to take of each kind: equally many as far as they go, `images` in all."""
    wanted = images // kinds
    if sum(there.values()) < wanted:
        listed = ", ".join(f"{number} {label}" for label, number in there.items())
        pairs = "held-out images with as many synthetic ones of the same class" if kinds > 1 else "images of the pack"
        raise UserError(
            f"--images {images}: needs {wanted} {pairs}, and there are {listed}. "
            f"Give --images {kinds * sum(there.values())} at most."
        )
    taken = dict.fromkeys(there, 0)
    while (lacking := wanted - sum(taken.values())) > 0:
        open_classes = [label for label, number in there.items() if taken[label] < number]
        for label in open_classes[:lacking]:
            taken[label] += 1
    return taken


def _numbered(
    rows: list[tuple[str, str, int]], sets: Mapping[str, DataSet], random: np.random.Generator
) -> pd.DataFrame:
    """The key, in random order."""
    table = pd.DataFrame([rows[one] for one in random.permutation(len(rows))], columns=["origin", "label", "row"])
    for name in ("image_id", "patient_id"):
        table[name] = [
            str(sets[origin].manifest[name].iloc[row])
            for origin, row in zip(table["origin"], table["row"], strict=True)
        ]
    return table.assign(number=range(1, len(table) + 1))
