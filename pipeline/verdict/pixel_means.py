"""Figures of anomaly maps: each detector's mean over folds and GANs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.metrics import MetricRow, as_text

METRICS = ("pixel_auroc", "aupro", "dice")


def mean_pixel_rows(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """One row a detector and figure. Without an interval: voxels of one image are not independent.

    Args:
        rows: those of the stage `detect`, one a fit, among others.
    """
    found: dict[tuple[str, str], list[MetricRow]] = {}
    for row in rows:
        if row.stage == "anomaly" and row.metric in METRICS and row.fold:
            found.setdefault((row.arm, row.metric), []).append(row)
    return [
        MetricRow(
            stage="anomaly", arm=arm, split="test", metric=metric,
            value=as_text(float(np.mean([float(row.value) for row in own]))),
            detail=f"mean of {len(own)} fits; {own[0].detail}",
        )
        for (arm, metric), own in found.items()
    ]  # fmt: skip
