"""Runs and sizes side by side in a terminal, in lines that fit 80 columns whatever arms and runs are called."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import pandas as pd

from pipeline.report.words import metric_name, points_with_interval, with_interval

_COLUMNS = 80
_GLUE = "\0"
_INTERVAL = re.compile(r"[-+.\d]+( points)? \([-+.\d]+ to [-+.\d]+\)")


def comparison_lines(found: pd.DataFrame) -> list[str]:
    """What `compare_runs` found: a heading with the metric, then an arm a block and a run a paragraph."""
    lines = _wrapped(
        f"{metric_name(found['endpoint'].iloc[0])} on test patients, each run's mean over fits, with the interval over "
        "patients and fits in brackets; then the difference from the run named, in points.",
        "",
    )
    for arm, rows in found.groupby("arm", sort=False):
        lines += ["", str(arm)]
        for row in rows.to_dict("records"):
            lines += _wrapped(f"{row['run']}: {_told(row)}", "  ")
    return lines


def curve_lines(curve: pd.DataFrame) -> list[str]:
    """The rows of curve.csv: a heading with metric and arms, then a size a paragraph."""
    first = curve.iloc[0]
    lines = _wrapped(
        f"{metric_name(first['endpoint'])} on {first['n_patients']:.0f} test patients: {first['reference']}, then "
        f"{first['arm']}, then the difference with its interval.",
        "",
    )
    for row in curve.to_dict("records"):
        gap = points_with_interval(row["difference"], row["ci_low"], row["ci_high"])
        note = f" ({row['no_interval']})" if row["no_interval"] else ""
        said = f"{row['reference_mean']:.3f}, {row['arm_mean']:.3f}, {gap}{note}: {row['decision']}"
        lines += _wrapped(f"{row['size']:.0f} a class: {said.replace('_', ' ')}", "  ")
    return lines


def _told(row: dict[Any, Any]) -> str:
    said = with_interval(row["value"], row["ci_low"], row["ci_high"])
    if row["against"]:
        gap = points_with_interval(row["difference"], row["low"], row["high"])
        said += f"; {gap} against {row['against']}, {row['pairing']}"
    return f"{said}; {row['note']}" if row["note"] else said


def _wrapped(text: str, indent: str) -> list[str]:
    """Lines of 80 columns at most; an interval stays on one line."""
    whole = _INTERVAL.sub(lambda found: found[0].replace(" ", _GLUE), text)
    lines = textwrap.wrap(
        whole, _COLUMNS, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    )
    return [line.replace(_GLUE, " ") for line in lines]
