"""What a translation between sites keeps and what it changes: the class must stay, the site must go.

Every figure is of training images, which the translator has seen: it does no better on others. Who judges has not seen
the patient: patients are halved at random, and each half's images and translations are judged by what learnt from the
other half, cells of site and class equally often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.adversarial.pictures import save_grid
from pipeline.core.compute import Hardware
from pipeline.core.guard import CYCLE_COLUMN, SOURCE_COLUMN, TRANSLATION
from pipeline.core.metrics import MetricRow
from pipeline.core.patients import patient_units
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.data.batches.dataset import DataSet
from pipeline.measures.frechet import fid
from pipeline.measures.kernel_distance import kid
from pipeline.nets.extractors import EffNetLite0
from pipeline.quality.distances import Figure, share
from pipeline.quality.rows import figure_row
from pipeline.quality.settings import QualityStageConfig
from pipeline.supervised.fit import Share, apply_classifier, fit_classifier

_SHOWN = 10
_MOST_UNLABELLED = 500
"""Unlabelled images that are looked at, at most, drawn by lot."""


def pairs_of(dataset: DataSet, synthetic: DataSet) -> pd.DataFrame:
    """One row a source image and new site: `source`, `made` (positions in both sets), label, `site`, `cycle`."""
    made = synthetic.manifest.drop_duplicates([SOURCE_COLUMN, "site"])
    table = pd.DataFrame({
        "source": dataset.rows(list(made[SOURCE_COLUMN])), "made": made.index.to_numpy(), "label": made["label"],
        "site": made["site"], "cycle": pd.to_numeric(made[CYCLE_COLUMN]),
    })  # fmt: skip
    return table.reset_index(drop=True)


def halves(dataset: DataSet, rows: np.ndarray, site: str, seed: int) -> np.ndarray:
    """0 or 1 for each image at `rows`: patients, halved at random within their (first image's) cell."""
    known = dataset.manifest.iloc[rows]
    units, cells = patient_units(known).to_numpy(dtype=str), _cells(known, site)
    names, first = np.unique(units, return_index=True)
    side, random = np.zeros(len(names), dtype=np.int64), numpy_generator(seed, "halves")
    for cell in np.unique(cells[first]):
        members = random.permutation(np.flatnonzero(cells[first] == cell))
        side[members] = np.arange(len(members)) % 2
    return side[np.searchsorted(names, units)]


def translation_rows(
    config: QualityStageConfig, dataset: DataSet, rows: np.ndarray, unlabelled: np.ndarray, synthetic: DataSet
) -> list[MetricRow]:
    """Rows of metrics.csv of the stage `translation`, for each class and the site that its images were translated to.

    `label_flips`: share of translations that a classifier calls otherwise than their sources; `wrong_calls`, and those
    of their sources and of the target's real images: that it calls otherwise than they are labelled. `called_target`
    of translations, of their sources and of the target's real images: the share that a site classifier calls the target
    site. `kid_target`, `fid_target`: distance to the target's real images of the class, of translations and (`_source`)
    of their sources. `cycle_error`: mean difference of an image from its way there and back, in shares of the window.

    Args:
        dataset: unlabelled images have no label in it.
        rows: of the labelled training images.
        unlabelled: of the others that the translator may have learnt from; where a class has no labelled image at a
            site, its translations are compared with these.
    """
    seen = np.concatenate([rows, _some(unlabelled, config.seed)])
    pairs, side = pairs_of(dataset, synthetic), halves(dataset, seen, config.site, config.seed)
    half = pd.Series(side, index=seen).reindex(pairs["source"]).to_numpy()
    known = dataset.manifest.iloc[seen]
    calls = _called_classes(config, dataset, rows, side[: len(rows)], synthetic, pairs, half)
    features, made = (
        _features(own, at, config.device) for own, at in ((dataset, seen), (synthetic, pairs["made"].to_numpy()))
    )
    places = pd.Series(np.arange(len(seen)), index=seen).reindex(pairs["source"]).to_numpy()
    sites = known[config.site].to_numpy(dtype=str)
    called_real, called_made = _called_sites(features, sites, _cells(known, config.site), side, made, half)
    found: list[MetricRow] = []
    for (target, label), own in pairs.groupby(["site", "label"], sort=True):
        at = own.index.to_numpy()
        of_class = (sites == target) & (known["label"] == label).to_numpy()
        real = np.flatnonzero(of_class if of_class.any() else (sites == target) & (known["label"] == "").to_numpy())
        shares = {
            "label_flips": calls["made"][at] != calls["source"][at],
            "wrong_calls": calls["made"][at] != label,
            "wrong_calls_source": calls["source"][at] != label,
            "wrong_calls_real": calls["real"][of_class[: len(rows)]] != label,
            "called_target": called_made[at] == target,
            "called_target_source": called_real[places[at]] == target,
            "called_target_real": called_real[real] == target,
        }
        made_rows = [_share(name, hits, config.alpha) for name, hits in shares.items()]
        made_rows += _distances(features[real], {"": made[at], "_source": features[places[at]]})
        error = own["cycle"].to_numpy()
        made_rows.append(
            figure_row(CYCLE_COLUMN, "synthetic", Figure(float(error.mean())), len(error), "share of the window")
        )
        found += [replace(row, label=str(label), subgroup=f"site = {target}") for row in made_rows]
    place = {"stage": TRANSLATION, "fold": str(config.fold), "gan_seed": str(config.gan_seed)}
    return [replace(row, **place) for row in found]


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    return np.sort(numpy_generator(seed, "unlabelled").permutation(rows)[:_MOST_UNLABELLED])


def save_translations(path: Path, dataset: DataSet, synthetic: DataSet) -> tuple[str, ...]:
    """Sources above translations, the first ten of each target and class, unpicked; returns the pairs' names."""
    pairs = pairs_of(dataset, synthetic)
    sheets, names = [], []
    for (target, label), own in pairs.groupby(["site", "label"], sort=True):
        some = own.iloc[np.arange(_SHOWN) % len(own)]
        sheets += [dataset.tensor(some["source"].to_numpy()), synthetic.tensor(some["made"].to_numpy())]
        names.append(f"{label} to {target}")
    save_grid(path, np.concatenate([sheet.numpy() for sheet in sheets]), _SHOWN)
    return tuple(names)


def _called_classes(
    config: QualityStageConfig, dataset: DataSet, rows: np.ndarray, side: np.ndarray, synthetic: DataSet,
    pairs: pd.DataFrame, half: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Class names of the `source` and the `made` image of each pair, and of the `real` images at `rows`, by the
    classifier that never saw the patient."""
    hardware, classes = Hardware(config.device, config.precision), np.array(config.classes)
    asked_of = {
        "source": (dataset, pairs["source"].to_numpy(), half),
        "made": (synthetic, pairs["made"].to_numpy(), half),
        "real": (dataset, rows, side),
    }
    found = {name: np.empty(len(places), dtype=object) for name, (_, places, _) in asked_of.items()}
    for number in (0, 1):
        taught = rows[side != number]
        groups = np.unique(_cells(dataset.manifest.iloc[taught], config.site), return_inverse=True)[1]
        learnt = Share(dataset, taught, groups=groups.astype(np.int64))
        seed = derive_seed(config.classifier_seed, "independent", number)
        net = fit_classifier(config.classifier, [learnt], config.classes, hardware, classical=True, seed=seed)
        for name, (own, places, halved) in asked_of.items():
            asked = halved == number
            if asked.any():
                scores = apply_classifier(net, own, places[asked], hardware)
                found[name][asked] = classes[scores.argmax(axis=1)]
    return found


def _called_sites(
    features: np.ndarray, sites: np.ndarray, cells: np.ndarray, side: np.ndarray, made: np.ndarray, half: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sites that real images and translations are called, by logistic regression in which all cells weigh the same."""
    from sklearn.linear_model import LogisticRegression  # here, because it brings much of scikit-learn

    centre, spread = features.mean(axis=0), features.std(axis=0)
    standard, other = ((each - centre) / np.where(spread > 1e-9, spread, 1.0) for each in (features, made))
    real_calls, made_calls = np.empty(len(features), dtype=object), np.empty(len(made), dtype=object)
    for number in (0, 1):
        taught = side != number
        counts = pd.Series(cells[taught]).value_counts()
        weight = 1 / counts.loc[cells[taught]].to_numpy()
        model = LogisticRegression(C=0.01, max_iter=1000)
        model.fit(standard[taught], sites[taught], sample_weight=weight / weight.mean())
        for calls, rows, images in ((real_calls, ~taught, standard), (made_calls, half == number, other)):
            if rows.any():
                calls[rows] = model.predict(images[rows])
    return real_calls, made_calls


def _distances(real: np.ndarray, others: dict[str, np.ndarray]) -> Iterator[MetricRow]:
    for suffix, images in others.items():
        detail = f"{EffNetLite0.NAME}; {len(real)}:{len(images)} real target:{'source' if suffix else 'translated'}"
        enough = min(len(real), len(images)) > 2
        for name, figure in (
            ("kid_target", Figure(*kid(real, images)) if enough else Figure(float("nan"))),
            ("fid_target", Figure(fid(real, images)) if enough else Figure(float("nan"))),
        ):
            yield figure_row(name + suffix, "synthetic", figure, len(images), detail)


def _share(name: str, hits: np.ndarray, alpha: float) -> MetricRow:
    value = float(hits.mean()) if len(hits) else float("nan")
    detail = f"of {len(hits)} images, judged by what never saw their patients"
    return figure_row(name, "synthetic", share(value, len(hits), alpha), len(hits), detail)


def _features(dataset: DataSet, rows: np.ndarray, device: str) -> np.ndarray:
    extractor = EffNetLite0(device)
    return np.concatenate([extractor.extract(block).numpy() for block in dataset.blocks(rows)])


def _cells(table: pd.DataFrame, site: str) -> np.ndarray:
    return (table["label"] + "\n" + table[site]).to_numpy(dtype=str)
