"""A row of the quality stage's table."""

from __future__ import annotations

import math

from pipeline.core.metrics import MetricRow, as_text
from pipeline.quality.distances import Figure


def figure_row(metric: str, split: str, figure: Figure, number: int, detail: str) -> MetricRow:
    """The row of one figure of `number` images; what could not be made is empty, and `detail` says so."""
    value, low, high = (
        as_text(part if math.isfinite(part) else None) for part in (figure.value, figure.low, figure.high)
    )
    return MetricRow(
        stage="quality", split=split, metric=metric, value=value, ci_low=low, ci_high=high, n_images=str(number),
        detail=detail if value else f"{detail}; too few images",
    )  # fmt: skip
