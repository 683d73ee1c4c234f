"""The first half of the guard against synthetic shortcuts: can "is synthetic" be read off an image of a class?

Where it can, and where synthetic images are more frequent in one class than in another, a classifier may learn that in
place of the disease. The other half, whether a classifier does, is `verdict.synthetic_shortcut`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.core.guard import FROM_IMAGE, SOURCE_COLUMN, STAGE
from pipeline.core.metrics import MetricRow
from pipeline.core.patients import patient_units
from pipeline.data.batches.dataset import DataSet
from pipeline.measures.readable import readable
from pipeline.nets.extractors import EffNetLite0
from pipeline.quality.ceiling import Pair
from pipeline.quality.describe import drawn
from pipeline.quality.distances import Figure
from pipeline.quality.rows import figure_row

_MOST = 500
"""Images of a side that are looked at."""
_SHUFFLINGS = 499


def told_apart_row(
    train: Pair, synthetic: DataSet, site: str, features: tuple[np.ndarray, np.ndarray] | None, *,
    seed: int, alpha: float, device: str,
) -> MetricRow:  # fmt: skip
    """`synthetic_from_image`: AUROC of telling synthetic from real training images of one class, and of one site where
    the generator is asked by site; with an interval over patients, and in `detail` its chance level and p-value.

    The probe is the site's own: a linear classifier on EfficientNet-Lite0 features that is asked about unseen patients.
    An image that was made from a patient's one (a translation) belongs to that patient; others are patients of their
    own.

    Args:
        site: the manifest's column of the site; "" = there is none.
        features: [n, D] of all training and all synthetic images, where they have been extracted already.
    """
    dataset, rows = train
    chosen = (drawn(len(rows), _MOST, seed), drawn(len(synthetic.images), _MOST, seed))
    tables = (dataset.manifest.iloc[rows].iloc[chosen[0]], synthetic.manifest.iloc[chosen[1]])
    if features is None:
        places = ((dataset, rows[chosen[0]]), (synthetic, chosen[1]))
        found = [_extracted(own, at, device) for own, at in places]
    else:
        found = [each[at] for each, at in zip(features, chosen, strict=True)]
    by_site = bool(site) and "site" in synthetic.manifest
    cells = np.concatenate([_cells(tables[0], site if by_site else ""), _cells(tables[1], "site" if by_site else "")])
    told = readable(
        np.concatenate(found).astype(np.float64),
        (np.arange(len(cells)) >= len(tables[0]))[:, None],
        np.unique(cells, return_inverse=True)[1].astype(np.int64),
        np.concatenate([patient_units(tables[0]).to_numpy(dtype=str), makers(tables[1], dataset.manifest)]),
        seed,
        _SHUFFLINGS,
        alpha,
    )
    within = "within a class of a site" if by_site else "within a class"
    if told is None:
        detail, figure = f"linear on {EffNetLite0.NAME}, {within}", Figure(float("nan"))
    else:
        detail = f"linear on {EffNetLite0.NAME}, {within}; chance {told.chance:.2f}, p = {told.p_value:.3f}"
        low, high = (float("nan") if one is None else one for one in (told.auroc.low, told.auroc.high))
        figure = Figure(told.auroc.value, low, high)
    row = figure_row(FROM_IMAGE, "synthetic", figure, len(cells), detail)
    return replace(row, stage=STAGE)


def _extracted(dataset: DataSet, rows: np.ndarray, device: str) -> NDArray[np.float32]:
    extractor = EffNetLite0(device)
    return np.concatenate([extractor.extract(block).numpy() for block in dataset.blocks(rows)])


def _cells(table: pd.DataFrame, site: str) -> np.ndarray:
    cell = table["label"] + "\n" + table[site] if site else table["label"]
    return cell.to_numpy(dtype=str)


def makers(made: pd.DataFrame, real: pd.DataFrame) -> np.ndarray:
    """Whose patient a synthetic image belongs to: that of the image it was made from, or nobody else's."""
    own = ("synthetic " + made["image_id"]).to_numpy(dtype=object)
    if SOURCE_COLUMN in made:
        patients = pd.Series(patient_units(real).to_numpy(), index=real["image_id"])
        found = made[SOURCE_COLUMN].map(patients).to_numpy(dtype=object)
        own = np.where(pd.isna(found), own, found)
    return own.astype(str)
