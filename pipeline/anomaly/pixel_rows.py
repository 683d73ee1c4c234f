"""How well a detector's maps find what masks mark: rows of metrics.csv, where it has maps and the images have masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.anomaly.cohort import Cohort
from pipeline.anomaly.detector import Detector, ImageSet
from pipeline.core.metrics import MetricRow, as_text, write_metrics
from pipeline.core.patients import patient_units
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.measures.pixels import dice_interval, dice_threshold, pixel_intervals

_VOXELS = 2**25
"""Of maps that are held together; of more images, so many at random."""
_ALPHA = 0.05
"""Of the intervals over patients."""


@dataclass(frozen=True)
class _Marked:
    """Images of a split with what is known of their voxels.

    Attributes:
        images: normal ones, and abnormal ones with a mask that marks something.
        truth: [N, *spatial] bool, nothing in normal images.
    """

    images: ImageSet
    truth: np.ndarray


def write_pixel_rows(
    directory: Path, detector: Detector, cohort: Cohort, *, named: str, fold: int, gan_seed: int | None
) -> None:
    """Write metrics.csv into `directory` for a fitted detector; nothing where there are no masks or no maps.

    Pixel AUROC, AUPRO and Dice are those of the test images; the threshold of Dice is the best one of the validation
    images, and without abnormal ones among them there is no Dice. A normal image has no anomalous voxel, whatever its
    mask marks; abnormal images whose mask is empty, and images without a label, are left out.
    """
    normal, seed = detector.setting.normal, detector.setting.seed
    test, val = (_marked(cohort.tried.get(split), normal, seed) for split in ("test", "val"))
    if test is None or not test.truth.any():
        return
    maps = _maps(detector, test.images)
    if maps is None:
        return
    units = patient_units(test.images.dataset.manifest).to_numpy(dtype=str)[test.images.rows]
    random = numpy_generator(seed, "patients with masks")
    auroc, aupro = pixel_intervals(maps, test.truth, units, random, _ALPHA)
    values = {"pixel_auroc": (auroc, "all voxels"), "aupro": (aupro, "up to 30 % false positives")}
    seen = None if val is None or not val.truth.any() else _maps(detector, val.images)
    if val is not None and seen is not None:
        cut = dice_threshold(seen, val.truth)
        found = dice_interval(maps, test.truth, cut, units, random, _ALPHA)
        values["dice"] = found, "threshold with the best Dice of the validation images"
    rows = [
        MetricRow(
            stage="anomaly", arm=named, fold=str(fold), seed="0", gan_seed="" if gan_seed is None else str(gan_seed),
            split="test", metric=metric, value=as_text(found.value), ci_low=as_text(found.low),
            ci_high=as_text(found.high), n_patients=str(len(np.unique(units))), n_images=str(len(units)), detail=detail,
        )
        for metric, (found, detail) in values.items()
    ]  # fmt: skip
    write_metrics(directory, rows)


def _marked(images: ImageSet | None, normal: Sequence[str], seed: int) -> _Marked | None:
    """None where the images have no masks."""
    if images is None or images.dataset.masks is None:
        return None
    label = images.dataset.manifest["label"].iloc[images.rows]
    healthy, ill = label.isin(normal).to_numpy(), ((label != "") & ~label.isin(normal)).to_numpy()
    masks = images.dataset.masks
    marked = np.array([bool(masks[row].any()) for row in images.rows], dtype=bool)
    places = np.flatnonzero(healthy | (ill & marked))
    most = max(1, _VOXELS // int(np.prod(masks.shape[2:])))
    if len(places) > most:
        random = np.random.default_rng(derive_seed(seed, "maps beside masks"))
        places = np.sort(random.permutation(places)[:most])
    rows = images.rows[places]
    truth = (masks[rows, 0] > 0) & ill[places].reshape(-1, *[1] * (masks.ndim - 2))
    return _Marked(ImageSet(images.dataset, rows), truth)


def _maps(detector: Detector, images: ImageSet) -> np.ndarray | None:
    """[N, *spatial]; None where the detector cannot say where."""
    found = []
    with torch.inference_mode():
        for block in images.blocks():
            maps = detector.map(block)
            if maps is None:
                return None
            found.append(maps.float().numpy())
    return np.concatenate(found)
