"""What `radaug validate` says of `gan.dp`: the noise, what to expect of it, and how many patients would be enough."""

from __future__ import annotations

import pandas as pd

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.private.budget import moves_of, one_look_budget, sampling_budget
from pipeline.adversarial.private.feasibility import feasibility_table, require_feasible
from pipeline.config.gan import GanConfig
from pipeline.data.batches.patients import patient_names
from pipeline.nets.fourier import SENSITIVITY


def outlook(gan: GanConfig, members: pd.DataFrame) -> list[str]:
    """Sentences, and the table of what is feasible; of the fold with the fewest training patients.

    Args:
        members: training images: fold, image_id and patient_id.

    Raises:
        UserError: an image has no patient, the patients are too few, or the budget cannot be kept.
    """
    assert gan.dp is not None
    patients = min(patient_names(table, gan.dp.unit).nunique() for _, table in members.groupby("fold"))
    if FAMILIES[gan.family].private == "embedding":
        budget = one_look_budget(gan.dp, patients, SENSITIVITY)
        return [
            f"Differential privacy: ε = {budget.epsilon:g}, δ = {budget.delta:.1e} for each of {patients} "
            f"{gan.dp.unit}s by one look with a noise multiplier of {budget.noise:.2f}."
        ]
    found = require_feasible(gan.dp, patients, moves_of(gan))
    budget = sampling_budget(gan, patients)
    table = ["; ".join(f"{name} {cell}" for name, cell in row.items()) for row in feasibility_table()]
    whom = f"ε = {budget.epsilon:g}, δ = {budget.delta:.1e} for each of {patients} {gan.dp.unit}s"
    how = f"{budget.allowed:,} looks with a noise multiplier of {budget.noise:.2f} over batches of {gan.batch_size}"
    return [
        f"Differential privacy: {whom} by {how} (σ/B {budget.noise / gan.batch_size:.4f}; over the moves that a GAN "
        f"needs at least {found.least:.4f}): {found.word}.",
        "Least σ/B by patients and ε: " + " | ".join(table),
    ]
