"""How a training under `gan.dp` begins: its patients numbered, its budget drawn up, or a refusal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.private.budget import Budget, moves_of, one_look_budget, sampling_budget
from pipeline.adversarial.private.feasibility import require_feasible
from pipeline.config.gan import GanConfig
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.patients import patient_numbers
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.fourier import SENSITIVITY


def private_start(
    gan: GanConfig, dataset: DataSet, rows: np.ndarray, images: StoredImages
) -> tuple[StoredImages, Budget | None]:
    """The images at `rows` with their patients' numbers, and the budget; nothing changes where there is no `gan.dp`.

    Raises:
        DataError: an image has no patient, or the patients are too few.
        ConfigError: the budget cannot be kept.
    """
    if gan.dp is None:
        return images, None
    images = replace(images, patient=patient_numbers(dataset, rows, gan.dp.unit))
    return images, budget_of(gan, images)


def budget_of(gan: GanConfig, images: StoredImages) -> Budget:
    """The budget of a training on the labelled ones of `images`."""
    assert gan.dp is not None and images.patient is not None
    patients = len(images.patient[images.label.cpu() >= 0].unique())
    if FAMILIES[gan.family].private == "embedding":
        return one_look_budget(gan.dp, patients, SENSITIVITY)
    require_feasible(gan.dp, patients, moves_of(gan))
    return sampling_budget(gan, patients)
