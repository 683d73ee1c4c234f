"""Which synthetic images are worth training on: three filters, set on training images alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.weights import has_net, load_net, read_description
from pipeline.core.errors import DataError
from pipeline.core.seeds import numpy_generator
from pipeline.data.batches.dataset import DataSet
from pipeline.measures.coverage import nearest_distances, nearest_others
from pipeline.nets.conditions import condition_of
from pipeline.nets.extractors import EffNetLite0

SCORED = 0.5
"""Part of a class's images with the highest discriminator scores that is kept."""
NOVEL = 0.05
"""Quantile of the distances between a training image and its nearest neighbour below which an image is a copy."""
_MEASURED = 2000
"""Training images whose distance to another one is measured, at most: so many place the quantile, and all pairs of a
large set would take the square of their number."""
_BATCH = 64


@dataclass(frozen=True)
class Curation:
    """What became of each synthetic image.

    Attributes:
        classes: names, in the order of `asked`.
        asked: [N] the class that the generator was asked for.
        passed: filter -> [N] bool.
    """

    classes: tuple[str, ...]
    asked: np.ndarray
    passed: dict[str, np.ndarray]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Class -> number of images made, that passed each filter, and that passed all."""
        filters = self.passed | {"kept": self._all}
        return {
            name: {"made": int((self.asked == number).sum())}
            | {key: int(good[self.asked == number].sum()) for key, good in filters.items()}
            for number, name in enumerate(self.classes)
        }

    def kept(self, fewest: int) -> np.ndarray:
        """Rows of the images that passed all filters.

        Raises:
            DataError: of a class fewer than `fewest` did.
        """
        for name, count in self.counts.items():
            if count["kept"] < fewest:
                raise DataError(
                    f"curation left {count['kept']} synthetic images of {name} out of {count['made']}, and {fewest} "
                    f"are needed ({', '.join(f'{key}: {n}' for key, n in count.items())}). Raise "
                    "synthesis.samples_per_class, train the GAN longer, or leave the +curated arms out."
                )
        return np.flatnonzero(self._all)

    @property
    def _all(self) -> np.ndarray:
        return np.logical_and.reduce(list(self.passed.values()))


def curate(
    real: DataSet,
    train_rows: np.ndarray,
    synthetic: DataSet,
    scores: np.ndarray,
    classes: tuple[str, ...],
    fit_dir: Path,
) -> Curation:
    """Judge every synthetic image by three filters. No validation or test image is looked at.

    `score`: in the upper half of its class by the GAN's own discriminator, under the class that was asked for (left
    out where the family's discriminator needs more than image and class). `agreement`: the ensemble finds the asked
    class the likeliest. `novelty`: no nearer to a training image than all but 5 % of training images (of 2,000 at most)
    are to another one, in EffNet-Lite0's features, so that copies go.

    Args:
        train_rows: the fold's labelled training images in `real`.
        scores: [N, num_classes] the ensemble's probabilities of the synthetic images.
        fit_dir: of the generator's fit-gan stage.
    """
    rows = np.arange(len(synthetic.images))
    asked = synthetic.labels(rows, classes).numpy()
    passed = {"agreement": scores.argmax(axis=1) == asked, "novelty": novel(real, train_rows, synthetic, rows)}
    if can_judge(fit_dir):
        passed = {"score": upper_part(discriminator_scores(fit_dir, synthetic, asked), asked)} | passed
    return Curation(classes, asked, passed)


def upper_part(scores: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Whether each image [N] is in the upper part of its class."""
    keep = np.zeros(len(scores), dtype=bool)
    for number in np.unique(asked):
        own = asked == number
        keep[own] = scores[own] >= np.quantile(scores[own], 1 - SCORED)
    return keep


def can_judge(fit_dir: Path) -> bool:
    """Whether the family has a discriminator that needs an image and its class only."""
    gan: dict[str, Any] = read_description(fit_dir)["gan"]
    return has_net(fit_dir, "discriminator") and not gan["attributes"] and not FAMILIES[gan["family"]].needs


@torch.no_grad()
def discriminator_scores(fit_dir: Path, synthetic: DataSet, asked: np.ndarray) -> np.ndarray:
    """The discriminator's logits [N], the mean over patches where it judges patches; large = like a real image."""
    net, _ = load_net(fit_dir, "discriminator")
    parts = []
    for rows in _chunks(len(asked)):
        logits = net(synthetic.tensor(rows), condition_of(torch.from_numpy(asked[rows]))).logits
        parts.append(logits.flatten(1).mean(dim=1) if logits.ndim > 1 else logits)
    return torch.cat(parts).numpy()


def novel(real: DataSet, train_rows: np.ndarray, synthetic: DataSet, rows: np.ndarray) -> np.ndarray:
    """Whether each synthetic image [N] is far enough from all training images to be no copy."""
    training, made = features(real, train_rows), features(synthetic, rows)
    measured = np.sort(numpy_generator(0, "novelty").permutation(len(training))[:_MEASURED])
    return nearest_distances(training, made) >= np.quantile(nearest_others(training, measured), NOVEL)


def features(dataset: DataSet, rows: np.ndarray) -> np.ndarray:
    """EffNet-Lite0's features [len(rows), 1280]."""
    extractor = EffNetLite0()
    return np.concatenate([extractor.extract(dataset.tensor(rows[part])).numpy() for part in _chunks(len(rows))])


def _chunks(num: int) -> Sequence[np.ndarray]:
    return np.array_split(np.arange(num), max(1, -(-num // _BATCH)))
