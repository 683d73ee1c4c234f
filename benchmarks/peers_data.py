"""Warm epochs and metrics: ours beside MONAI's PersistentDataset and CacheDataset, and beside scikit-learn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import Stream, stored_images
from pipeline.measures.classification import weighted_auprc, weighted_auroc, weighted_rate
from pipeline.measures.paired import delong

Call = Callable[[], object]
BATCH, CLASSES = 32, ("a", "b")


@contextmanager
def epochs(shape: tuple[int, ...], number: int) -> Iterator[dict[str, Call]]:
    """One warm epoch each, as float32 batches in [-1, 1]; both of MONAI's sets have seen every file before.

    The files are .npy of 8-bit grey levels of that size already, so that no resampling is timed; MONAI's chain is
    LoadImage, EnsureChannelFirst, ScaleIntensityRange. PersistentDataset reads its cached tensors from disk.
    """
    from monai.data import CacheDataset, DataLoader, PersistentDataset, set_track_meta
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, ScaleIntensityRanged

    set_track_meta(True)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        images = np.random.default_rng(0).integers(0, 256, (number, 1, *shape), dtype=np.uint8)
        np.save(root / "images.npy", images)
        for row, image in enumerate(images):
            np.save(root / f"{row}.npy", image[0])
        label = [CLASSES[row % 2] for row in range(number)]
        chain = Compose([
            LoadImaged("image", reader="NumpyReader"),
            EnsureChannelFirstd("image", channel_dim="no_channel"),
            ScaleIntensityRanged("image", 0, 255, -1, 1, clip=True),
        ])  # fmt: skip
        files = [{"image": str(root / f"{row}.npy"), "label": CLASSES.index(name)} for row, name in enumerate(label)]
        cached = CacheDataset(files, chain, progress=False)
        kept = PersistentDataset(files, chain, root / "cache")
        manifest = pd.DataFrame({"image_id": [str(row) for row in range(number)], "label": label})
        scaling = Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8")
        dataset = DataSet(root, manifest, np.load(root / "images.npy", mmap_mode="r"), scaling)
        stream = Stream(stored_images(dataset, np.arange(number), CLASSES, (), "cpu"), BATCH, seed=0)

        def theirs(data: object) -> Call:
            loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=0)
            return lambda: sum(len(batch["label"]) for batch in loader)

        yield {
            "ours": lambda: sum(len(stream.next().label) for _ in range(number // BATCH)),
            "CacheDataset": theirs(cached),
            "PersistentDataset": theirs(kept),
        }


def metrics(number: int, draws: int) -> dict[str, tuple[Call, Call, float]]:
    """Name -> our call, scikit-learn's, and by how much the values differ, on `number` cases, 30 % diseased, with ties.

    `delong` stands beside the two AUROCs that it compares, since scikit-learn has no such test; its error is held
    against DeLong's formula over all pairs where there are no more than 1,000 cases. `auroc, draws` is AUROC under
    bootstrap weights, which scikit-learn takes one at a time.
    """
    random = np.random.default_rng(0)
    positive = random.random(number) < 0.3
    first, second = ((random.normal(size=number) + shift * positive).round(3) for shift in (1.0, 0.8))
    ones, cut = np.ones((1, number)), 0.5
    weights = random.multinomial(number, np.full(number, 1 / number), size=draws).astype(float)
    units = np.arange(number)

    def drawn() -> np.ndarray:
        return np.array([roc_auc_score(positive, first, sample_weight=weight) for weight in weights])

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "auroc": (
            lambda: weighted_auroc(first, positive, ones)[0],
            lambda: roc_auc_score(positive, first),
        ),
        "auprc": (
            lambda: weighted_auprc(first, positive, ones)[0],
            lambda: average_precision_score(positive, first),
        ),
        "sensitivity": (
            lambda: weighted_rate(first >= cut, positive, ones)[0],
            lambda: recall_score(positive, first >= cut),
        ),
        "delong": (
            lambda: delong(first, second, positive, units).value,
            lambda: roc_auc_score(positive, first) - roc_auc_score(positive, second),
        ),
        f"auroc, {draws} draws": (lambda: weighted_auroc(first, positive, weights), drawn),
    }
    found = {
        name: (ours, theirs, float(np.abs(np.asarray(ours()) - np.asarray(theirs())).max()))
        for name, (ours, theirs) in pairs.items()
    }
    if number <= 1000:
        error = delong(first, second, positive, units).error
        ours, theirs, gap = found["delong"]
        found["delong"] = ours, theirs, max(gap, abs(error - _delong_error(first, second, positive)))
    return found


def _delong_error(first: np.ndarray, second: np.ndarray, positive: np.ndarray) -> float:
    """Standard error of the difference: DeLong, DeLong & Clarke-Pearson 1988, equations 3 to 6, over all pairs."""
    kernels = [
        (score[positive][:, None] > score[~positive]) + 0.5 * (score[positive][:, None] == score[~positive])
        for score in (first, second)
    ]
    gap = kernels[0] - kernels[1]
    parts = [np.var(gap.mean(axis=axis), ddof=1) / gap.shape[1 - axis] for axis in (0, 1)]
    return float(np.sqrt(sum(parts)))
