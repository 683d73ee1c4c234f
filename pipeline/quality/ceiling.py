"""The other end of the scale: what images that show nothing get, and whether samples are all one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.core.metrics import MetricRow
from pipeline.data.batches.dataset import DataSet
from pipeline.measures.kernel_distance import kid
from pipeline.measures.twins import low_resolution, near_distance, twins
from pipeline.nets.extractors import Extractor
from pipeline.quality.describe import drawn
from pipeline.quality.distances import Figure, Rules, share
from pipeline.quality.rows import figure_row

BLANK, SHUFFLED = "blank", "shuffled"
_SHUFFLED = 64
"""Training images that are shuffled, at most: KID does not move with their number."""
_ALIKE = 200
"""Images of a class among which twins are looked for, at most."""
Pair = tuple[DataSet, np.ndarray]
"""A data set and the rows of it that are meant."""


def worthless_images(images: Tensor, seed: int) -> dict[str, Tensor]:
    """Images without content, made from real ones [N, C, *spatial]: the same grey everywhere, and shuffled voxels.

    Returns:
        `blank`: three images [3, C, *spatial] of the real ones' mean; `shuffled`: all of `images`, whose voxels are put
        into one random order, the same for each.
    """
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(images[0, 0].numel(), generator=random)
    return {
        BLANK: torch.full_like(images[:1], float(images.mean())).repeat_interleave(3, dim=0),
        SHUFFLED: images.flatten(2)[..., order].view_as(images),
    }


def worthless_features(train: Pair, extractor: Extractor, seed: int) -> dict[str, np.ndarray]:
    """The extractor's features [n, D] of such images; none without a training image."""
    dataset, rows = train
    if not len(rows):
        return {}
    images = dataset.tensor(rows[drawn(len(rows), _SHUFFLED, seed)])
    return {name: extractor.extract(made).numpy() for name, made in worthless_images(images, seed).items()}


def ceiling_rows(
    features: np.ndarray, worthless: Mapping[str, np.ndarray], extractor: str, device: str
) -> Iterator[MetricRow]:
    """`kid_blank` and `kid_shuffled`: their distance from training images with the features [N, D]."""
    for name, made in worthless.items():
        if min(len(features), len(made)) > 2:
            detail = f"{extractor}; {len(features)}:{len(made)} real:{name}"
            yield figure_row(f"kid_{name}", "train", Figure(*kid(features, made, device=device)), len(made), detail)


def repeat_rows(train: Pair, synthetic: DataSet, classes: Sequence[str], rules: Rules) -> Iterator[MetricRow]:
    """`repeats` of each class and of all, and as `repeats_floor` that of the training images: the share of twins.

    As many synthetic as training images of a class are looked at: nearest neighbours come nearer with the number.
    """
    dataset, rows = train
    label = dataset.manifest["label"].to_numpy()
    found: dict[str, list[np.ndarray]] = {"": [], "_floor": []}
    for name in classes:
        own = np.flatnonzero(synthetic.manifest["label"].to_numpy() == name)
        real = rows[label[rows] == name]
        number = min(len(own), len(real), _ALIKE)
        if number < 2:
            continue
        real, own = (each[drawn(len(each), number, rules.seed)] for each in (real, own))
        looked_at = {"_floor": dataset.tensor(real), "": synthetic.tensor(own)}
        near = near_distance(low_resolution(looked_at["_floor"]))
        for suffix, images in looked_at.items():
            alike = twins(low_resolution(images), near).numpy()
            found[suffix].append(alike)
            yield replace(_repeat_row(suffix, alike, rules), label=name)
    for suffix, parts in found.items():
        if parts:
            yield replace(_repeat_row(suffix, np.concatenate(parts), rules), label="all")


def _repeat_row(suffix: str, alike: np.ndarray, rules: Rules) -> MetricRow:
    split, what = ("train", "real training") if suffix else ("synthetic", "synthetic")
    detail = f"averaged to 8 a side; {len(alike)} {what} images"
    return figure_row(
        f"repeats{suffix}", split, share(float(alike.mean()), len(alike), rules.alpha), len(alike), detail
    )
