"""Stage `quality`: one generator's images against the fold's real ones, class by class and as a whole.

The reference is the fold's training images; its validation images give each figure's floor, which is what as many
real images of patients that no generator saw would get. Test images are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.adversarial.families import FAMILIES
from pipeline.core.compute import Hardware, autocast
from pipeline.core.guard import SOURCE_COLUMN, TRANSLATIONS_PICTURE
from pipeline.core.layout import QUALITY_CURVES
from pipeline.core.metrics import MetricRow, write_metrics
from pipeline.core.records import Record
from pipeline.data.batches.dataset import DataSet, open_dataset, write_table
from pipeline.data.cohort.folds import open_fold, split_ids
from pipeline.nets.extractors import ClassifierFeatures, EffNetLite0, Extractor, ScriptedFeatures
from pipeline.quality.ceiling import BLANK, SHUFFLED, Pair, worthless_features
from pipeline.quality.describe import Described, describe, with_nearest
from pipeline.quality.distances import Rules
from pipeline.quality.settings import QualityStageConfig
from pipeline.quality.tables import curves, metrics
from pipeline.quality.told_apart import told_apart_row
from pipeline.quality.translations import save_translations, translation_rows
from pipeline.supervised.fit import Share, fit_classifier

NOT_NOISE = "not a figure of noise samples"
_NOT_OWN = ("_floor", "_matched", f"_{BLANK}", f"_{SHUFFLED}")
"""How the names of figures end that are not of all the generator's images."""
Sets = dict[str, Described]


def run(config: QualityStageConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Write metrics.csv (figures, floors, and figures at the floors' number of images) and curves.csv.

    A family that changes real images makes no noise samples; it gets no such figures, and the record and the table say
    so. Between sites it gets those of translations, and a picture.
    """
    real, synthetic = open_dataset(inputs["prepare"]), open_dataset(inputs["synthesise"])
    rows = {split: _labelled(real, inputs["split"], config, split) for split in ("train", "val")}
    if "source" in FAMILIES[config.family].needs:
        further = [_told_apart(config, (real, rows["train"]), synthetic)]
        if SOURCE_COLUMN not in synthetic.manifest:
            return _no_figures(config, further, out_dir)
        known = open_fold(inputs["prepare"], inputs["split"], config.fold)
        unlabelled = known.rows(split_ids(inputs["split"], config.fold, "unlabelled"))
        further += translation_rows(config, known, rows["train"], unlabelled, synthetic)
        names = save_translations(out_dir / TRANSLATIONS_PICTURE, real, synthetic)
        return replace(_no_figures(config, further, out_dir), extra={"translations": list(names)})
    extractor, sets = _describe(config, real, synthetic, rows)
    rules = _rules(config, real, sets)
    train = (real, rows["train"])
    worthless = worthless_features(train, extractor, config.seed)
    table = metrics(config, rules, sets, extractor.name(real.images.ndim - 2), train, synthetic, worthless)
    own = (sets["train"].features, sets["synthetic"].features) if isinstance(extractor, EffNetLite0) else None
    write_metrics(out_dir, [*table, _told_apart(config, train, synthetic, own)])
    write_table(out_dir / QUALITY_CURVES, curves(sets, real.scaling))
    whole = [row for row in table if row.label == "all" and not row.metric.endswith(_NOT_OWN)]
    values = {row.metric: float(row.value) for row in whole if row.value}
    counts = {f"{name}_images": len(described) for name, described in sets.items()}
    return Record(kind="quality", figures=values | counts)


def _describe(
    config: QualityStageConfig, real: DataSet, synthetic: DataSet, rows: Mapping[str, np.ndarray]
) -> tuple[Extractor, Sets]:
    hardware = Hardware(config.device, config.precision)
    shares = [Share(real, rows["train"])]
    net = fit_classifier(
        config.classifier, shares, config.classes, hardware, classical=True, seed=config.classifier_seed
    )
    classify = _probabilities(net, hardware)
    extractor = _extractor(config, net)
    places = {split: (real, at) for split, at in rows.items()}
    places["synthetic"] = (synthetic, np.arange(len(synthetic.images)))
    sets = {
        name: describe(name, dataset, at, extractor, classify, config.device) for name, (dataset, at) in places.items()
    }
    return extractor, {
        name: each
        if name == "train"
        else with_nearest(each, sets["train"], config.quality.max_images, config.seed, config.device)
        for name, each in sets.items()
    }


def _extractor(config: QualityStageConfig, net: torch.nn.Module) -> Extractor:
    if config.weights:
        return ScriptedFeatures(Path(config.weights), config.weights_digest, config.device)
    return ClassifierFeatures(net) if config.quality.extractor == "classifier" else EffNetLite0(config.device)


def _probabilities(net: torch.nn.Module, hardware: Hardware) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def classify(images: Tensor) -> Tensor:
        with autocast(hardware):
            logits = net(images.to(hardware.device))
        return torch.softmax(logits.float(), dim=1).cpu()

    return classify


def _labelled(real: DataSet, split: Path, config: QualityStageConfig, name: str) -> np.ndarray:
    """Rows of the fold's images in a split that have one of the run's classes."""
    rows = real.rows(split_ids(split, config.fold, name))
    return rows[real.manifest["label"].iloc[rows].isin(config.classes).to_numpy()]


def _rules(config: QualityStageConfig, real: DataSet, sets: Sets) -> Rules:
    low, high = real.scaling.window
    return Rules(
        grey=high - low,
        neighbours=config.quality.neighbours,
        max_images=config.quality.max_images,
        draws=config.quality.draws,
        alpha=config.alpha,
        seed=config.seed,
        device=config.device,
    )


def _told_apart(
    config: QualityStageConfig, train: Pair, synthetic: DataSet, features: tuple[np.ndarray, np.ndarray] | None = None
) -> MetricRow:
    row = told_apart_row(
        train, synthetic, config.site, features, seed=config.seed, alpha=config.alpha, device=config.device
    )  # fmt: skip
    return replace(row, fold=str(config.fold), gan_seed=str(config.gan_seed))


def _no_figures(config: QualityStageConfig, further: Sequence[MetricRow], out_dir: Path) -> Record:
    detail = f"{NOT_NOISE}: {config.family} changes real images of another class, or of another site"
    key = {"fold": str(config.fold), "gan_seed": str(config.gan_seed)}
    write_metrics(out_dir, [MetricRow(stage="quality", **key, label="all", metric="fid", detail=detail), *further])
    return Record(kind="quality", figures={"fid": NOT_NOISE}, notes=(f"Image quality: {detail}.",))
