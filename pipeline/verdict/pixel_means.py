"""Figures of anomaly maps: each detector's mean over folds and GANs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from pipeline.core.metrics import MetricRow, as_text
from pipeline.measures.resampling import Interval, spread_of_fits

METRICS = ("pixel_auroc", "aupro", "dice")


def mean_pixel_rows(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """One row a detector and figure, with an interval over patients and fits.

    Fits share patients, or may, so that their errors over patients count as wholly dependent: the interval is never
    too narrow for that.

    Args:
        rows: those of the stage `detect`, one a fit, among others.
    """
    found: dict[tuple[str, str], list[MetricRow]] = {}
    for row in rows:
        if row.stage == "anomaly" and row.metric in METRICS and row.fold:
            found.setdefault((row.arm, row.metric), []).append(row)
    means = {key: _mean([_interval(row) for row in own]) for key, own in found.items()}
    return [
        MetricRow(
            stage="anomaly", arm=arm, split="test", metric=metric, value=as_text(means[arm, metric].value),
            ci_low=as_text(means[arm, metric].low), ci_high=as_text(means[arm, metric].high),
            detail=f"mean of {len(own)} fits; {own[0].detail}",
        )
        for (arm, metric), own in found.items()
    ]  # fmt: skip


def _mean(fits: Sequence[Interval]) -> Interval:
    """The mean of the fits' figures; its ends from theirs and from the fits' scatter, as independent errors."""
    values, lows, highs = ([getattr(fit, name) for fit in fits] for name in ("value", "low", "high"))
    value = float(np.mean(values))
    if any(end is None for end in (*lows, *highs)):
        return Interval(value, None, None)
    fitted = spread_of_fits(np.array(values))
    scatter = float(stdtrit(fitted.freedom, 0.975)) * fitted.variance**0.5
    below, above = (float(np.hypot(value - np.mean(ends), scatter)) for ends in (lows, highs))
    return Interval(value, value - below, value + above).within(0.0, 1.0)


def _interval(row: MetricRow) -> Interval:
    low, high = (float(end) if end else None for end in (row.ci_low, row.ci_high))
    return Interval(float(row.value), low, high)
