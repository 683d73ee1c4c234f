"""What the figures of a set of images are made from, image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.core.progress import Progress
from pipeline.data.batches.dataset import DataSet
from pipeline.measures.coverage import nearest_distances
from pipeline.measures.histograms import intensity_histograms
from pipeline.measures.radiomics import radiomics
from pipeline.measures.spectra import radial_spectra
from pipeline.nets.extractors import Extractor

_VALUES = 2**21
"""Voxels that are looked at together."""


@dataclass(frozen=True)
class Described:
    """A set of N images: one row an image in every array.

    Attributes:
        label: class names [N].
        features: [N, D] of the extractor.
        radiomics: [N, F] of `pipeline.measures.radiomics`.
        histogram: [N, bins] shares of grey levels.
        spectrum: [N, R] decibels.
        probability: [N, K] of the reference classifier.
        nearest: [N] distance to the nearest training image; NaN in the training set, and where it was not sought.
    """

    label: np.ndarray
    features: np.ndarray
    radiomics: np.ndarray
    histogram: np.ndarray
    spectrum: np.ndarray
    probability: np.ndarray
    nearest: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def at(self, rows: np.ndarray) -> Described:
        return Described(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


def describe(
    what: str,
    dataset: DataSet,
    rows: np.ndarray,
    extractor: Extractor,
    classify: Callable[[Tensor], Tensor],
    device: str,
) -> Described:
    """Look at the images at `rows` in blocks: no more than some images lie in memory at a time.

    Args:
        what: name of the set, for the progress line.
        classify: images [B, C, *spatial] in [-1, 1] -> class probabilities [B, K], on the CPU.
    """
    block = max(1, min(256, _VALUES // int(np.prod(dataset.images.shape[1:]))))
    progress = Progress(f"quality of {what} images", len(rows), "images")
    parts = []
    for start in range(0, len(rows), block):
        images = dataset.tensor(rows[start : start + block])
        there = images.to("cpu" if device == "mps" else device)  # mps has no float64
        looks = (radiomics(there), intensity_histograms(there), radial_spectra(there), classify(images))
        parts.append([extractor.extract(images), *looks])
        progress.update(start + len(images))
    features, plain, histogram, spectrum, probability = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
    label = dataset.manifest["label"].iloc[rows].to_numpy()
    return Described(label, features, plain, histogram, spectrum, probability, np.full(len(rows), np.nan))


def with_nearest(described: Described, train: Described, most: int, seed: int, device: str) -> Described:
    """The same set, knowing how far its images lie from the nearest one of `train`, whatever its class.

    Of more than `most` images as many are drawn at random; the others' distance stays NaN.
    """
    nearest = np.full(len(described), np.nan)
    rows = drawn(len(described), most, seed)
    nearest[rows] = nearest_distances(train.features, described.features[rows], device)
    return replace(described, nearest=nearest)


def drawn(number: int, most: int, seed: int) -> np.ndarray:
    """All of `number` rows, or `most` of them at random, in order."""
    if number <= most:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).permutation(number)[:most])
