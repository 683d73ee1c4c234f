"""metrics.csv and curves.csv of the quality stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch.nn.functional as F  # noqa: N812

from pipeline.core.metrics import MetricRow
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.measures.ms_ssim import pairwise_ms_ssim_interval
from pipeline.quality.ceiling import ceiling_rows, repeat_rows
from pipeline.quality.describe import Described
from pipeline.quality.distances import OF_FEATURES, Figure, Rules, figures, matched
from pipeline.quality.rows import figure_row
from pipeline.quality.settings import QualityStageConfig

_MATCHED = 5
_SIDES = {2: 128, 3: 32}
"""MS-SSIM looks at no more pixels or voxels a side than this."""
Group = tuple[str, Mapping[str, Described]]


def metrics(
    config: QualityStageConfig,
    rules: Rules,
    sets: Mapping[str, Described],
    extractor: str,
    train: tuple[DataSet, np.ndarray],
    synthetic: DataSet,
    worthless: Mapping[str, np.ndarray],
) -> list[MetricRow]:
    """The stage's rows of metrics.csv: figures of each class and of `all`.

    `METRIC` is of all synthetic images, `METRIC_floor` of the fold's validation images, `METRIC_matched` of as many
    synthetic images of each class as there are validation images, each against the training images. `kid_blank` and
    `kid_shuffled` are those of images that show nothing, whose features are `worthless`.
    """
    unit = synthetic.scaling.unit
    rows: list[MetricRow] = []
    for label, group in groups(sets, config.classes):
        made = [*_group_rows(group, rules, extractor, unit, whole=label == "all")]
        made += ceiling_rows(group["train"].features, worthless, extractor, rules.device)
        rows += [replace(row, label=label) for row in made]
    rows += [*_similarity_rows(config, train, synthetic), *repeat_rows(train, synthetic, config.classes, rules)]
    return [replace(row, fold=str(config.fold), gan_seed=str(config.gan_seed)) for row in rows]


def groups(sets: Mapping[str, Described], classes: Sequence[str]) -> Iterator[Group]:
    """All images, then each class. In `all`, synthetic images are drawn in the training images' proportion."""
    shares = {name: float(np.mean(sets["train"].label == name)) for name in classes}
    synthetic = sets["synthetic"]
    of_class = {name: np.flatnonzero(synthetic.label == name) for name in classes}
    total = min((len(of_class[name]) / share for name, share in shares.items() if share), default=0.0)
    mixed = np.concatenate([of_class[name][: int(total * share + 1e-9)] for name, share in shares.items()])
    yield "all", {**sets, "synthetic": synthetic.at(mixed)}
    for name in classes:
        yield name, {split: each.at(np.flatnonzero(each.label == name)) for split, each in sets.items()}


def _group_rows(
    group: Mapping[str, Described], rules: Rules, extractor: str, unit: str, *, whole: bool
) -> Iterator[MetricRow]:
    train, val, synthetic = (group[name] for name in ("train", "val", "synthetic"))
    found = {
        "": (synthetic, figures(train, synthetic, rules), "real:synthetic"),
        "_floor": (val, figures(train, val, rules), "real train:real val"),
    }
    for suffix, (other, values, sides) in found.items():
        for name, figure in values.items():
            if whole or name != "inception_score":
                detail = (
                    f"{_what(name, extractor, unit)}; {len(train)}:{len(other)} {sides}{_limit(name, other, rules)}"
                )
                yield figure_row(name + suffix, "val" if suffix else "synthetic", figure, len(other), detail)
    if len(val) and len(synthetic):
        means, number = matched(train, synthetic, val, rules, _MATCHED)
        for name, value in means.items():
            if whole or name != "inception_score":
                counts = f"{len(train)}:{number} real:synthetic, mean of {_MATCHED} draws"
                detail = f"{_what(name, extractor, unit)}; {counts}"
                yield figure_row(f"{name}_matched", "synthetic", Figure(value), number, detail)


def _what(name: str, extractor: str, unit: str) -> str:
    if name in OF_FEATURES:
        return extractor
    grey = "grey values" if unit == "none" else unit
    return {
        "inception_score": "the run's classifier",
        "histogram_w1": grey,
        "histogram_js": "bits, 256 grey levels",
        "spectrum_distance": "decibels",
        "radiomics_fid": "16 features, standard deviations of real images",
    }[name]


def _limit(name: str, other: Described, rules: Rules) -> str:
    if name in ("precision", "recall", "density", "coverage") and len(other) > rules.max_images:
        return f", of these {rules.max_images} at most drawn"
    sought = int(np.isfinite(other.nearest).sum())
    return f", of these {sought} drawn" if name == "nearest_real_distance" and sought < len(other) else ""


def _similarity_rows(
    config: QualityStageConfig, train: tuple[DataSet, np.ndarray], synthetic: DataSet
) -> Iterator[MetricRow]:
    """Intra-class MS-SSIM of the synthetic images, and as `floor` that of the real training images."""
    sources = {"": (synthetic, np.arange(len(synthetic.images))), "_floor": train}
    for suffix, (dataset, rows) in sources.items():
        split, what = ("train", "real training") if suffix else ("synthetic", "synthetic")
        of_class = []
        for name in config.classes:
            own = rows[(dataset.manifest["label"].iloc[rows] == name).to_numpy()]
            if len(own) > 1:
                figure, side, number = _similarity(config, dataset, own)
                detail = f"{side} a side; {number} {what} images"
                of_class.append((figure, number))
                yield replace(figure_row(f"ms_ssim{suffix}", split, figure, number, detail), label=name)
        if of_class:
            values = np.array([[one.value, one.low, one.high] for one, _ in of_class])
            margin = float(np.sqrt((((values[:, 2] - values[:, 1]) / 2) ** 2).sum()) / len(of_class))
            mean = float(values[:, 0].mean())
            figure, number = Figure(mean, max(mean - margin, 0.0), min(mean + margin, 1.0)), sum(n for _, n in of_class)
            detail = f"mean over {len(of_class)} classes; {number} {what} images"
            yield replace(figure_row(f"ms_ssim{suffix}", split, figure, number, detail), label="all")


def _similarity(config: QualityStageConfig, dataset: DataSet, rows: np.ndarray) -> tuple[Figure, int, int]:
    """MS-SSIM of random pairs, the longest side looked at, and the number of images; at most one image a pair end."""
    random = np.random.default_rng(config.seed)
    chosen = np.sort(random.permutation(rows)[: 2 * config.quality.pairs])
    images = dataset.tensor(chosen)
    most = _SIDES[images.ndim - 2]
    sizes = tuple(min(side, most) for side in images.shape[2:])
    pool: Any = F.adaptive_avg_pool2d if images.ndim == 4 else F.adaptive_avg_pool3d
    smaller = pool(images, sizes)
    figure = Figure(*pairwise_ms_ssim_interval(smaller, config.quality.pairs, config.seed, config.alpha))
    return figure, max(sizes), len(chosen)


def curves(sets: Mapping[str, Described], scaling: Scaling) -> pd.DataFrame:
    """Mean grey-value histogram and power spectrum of each set: columns set, curve, x, y.

    `histogram`: x in the images' unit, y the share of voxels a bin. `spectrum`: x in cycles a voxel, y in decibels.
    """
    parts = []
    for name, described in sets.items():
        if not len(described):
            continue
        bins, circles = described.histogram.shape[1], described.spectrum.shape[1]
        low, high = scaling.window
        level = low + (np.arange(bins) + 0.5) * (high - low) / bins
        frequency = 0.5 * np.arange(1, circles + 1) / circles
        for curve, x, values in (
            ("histogram", level, described.histogram),
            ("spectrum", frequency, described.spectrum),
        ):
            y = values.mean(axis=0, dtype=np.float64)
            parts.append(pd.DataFrame({"set": name, "curve": curve, "x": x, "y": y}))
    return pd.concat(parts).assign(
        x=lambda rows: rows["x"].map("{:.6g}".format), y=lambda rows: rows["y"].map("{:.6g}".format)
    )
