"""What lies beside a training image: its translation to the other site."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.core.errors import DataError, LeakageError
from pipeline.core.guard import SOURCE_COLUMN
from pipeline.data.batches.dataset import DataSet


def require_sources(dataset: DataSet, rows: np.ndarray, generated: DataSet) -> None:
    """Check that nothing but the images at `rows` was translated.

    Raises:
        LeakageError: something else was.
    """
    if not set(generated.manifest[SOURCE_COLUMN]) <= set(dataset.manifest["image_id"].iloc[rows]):
        raise LeakageError("the GAN has translated images that are not training images of this fold. Train it again.")


def translations(dataset: DataSet, rows: np.ndarray, generated: DataSet) -> np.ndarray:
    """Position in `generated` of the first translation of each image at `rows`.

    Raises:
        LeakageError: something else than these images was translated.
        DataError: the synthetic images are no translations, or an image has none.
    """
    if SOURCE_COLUMN not in generated.manifest:
        raise DataError(
            "arms: some compare images with their translations, and the GAN translates none. Use a cyclegan or a "
            "stargan."
        )
    require_sources(dataset, rows, generated)
    sources = generated.manifest[SOURCE_COLUMN]
    wanted = pd.Index(dataset.manifest["image_id"].iloc[rows])
    first = pd.Series(np.arange(len(sources)), index=sources)[~sources.duplicated().to_numpy()]
    found = first.reindex(wanted)
    if found.isna().any():
        raise DataError(
            f"arms: {int(found.isna().sum())} of {len(rows)} training images have no translation, since too few were "
            "made. Raise synthesis.samples_per_class."
        )
    return found.to_numpy(dtype=np.int64)
