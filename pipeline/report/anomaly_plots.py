"""Plots of anomaly detectors: the scores of both sides, and the ROC curves of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
import pandas as pd

from pipeline.report.names import detector_title
from pipeline.report.plots import mean_roc, roc_line
from pipeline.report.style import BLACK, BLUE, CYCLE, GREY, ORANGE, PURPLE, VERMILLION, house_style, panels, png

_ABNORMAL = (VERMILLION, ORANGE, PURPLE, GREY)
_SIDES = {"normal": BLUE, "abnormal": VERMILLION}
_DASHES = ("-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def anomaly_plot(scores: pd.DataFrame, classes: Sequence[str], alarm: float | None) -> bytes:
    """Distribution of the scores of the test images: normal ones above, abnormal ones below, stacked by class.

    Args:
        scores: label, normal (1 or 0 as text) and anomaly_score of the test images.
        alarm: the score from which an alarm is raised.
    """
    values = scores["anomaly_score"].to_numpy(dtype=float)
    edges = np.linspace(values.min(), values.max() + 1e-9, 31).tolist()
    sides = [(name, own) for name, flag in (("normal", "1"), ("abnormal", "0")) if len(own := _of_side(scores, flag))]
    with house_style():
        figure, axes = panels(len(sides), columns=1, height=1.9)
        for axis, (side, own) in zip(axes, sides, strict=True):
            present = [name for name in classes if (own["label"] == name).any()]
            split = side == "abnormal" and len(present) > 1
            groups = [own[own["label"] == name] for name in present] if split else [own]
            parts = [group["anomaly_score"].to_numpy(dtype=float) for group in groups]
            colours = [_ABNORMAL[place % len(_ABNORMAL)] for place in range(len(parts))] if split else [_SIDES[side]]
            axis.hist(
                parts, bins=edges, stacked=True, color=colours, label=present if split else [side], edgecolor="white",
                lw=0.5,
            )  # fmt: skip
            axis.axvline(float(own["anomaly_score"].median()), color=BLACK, lw=1.4)
            if alarm is not None:
                axis.axvline(alarm, color=BLACK, lw=1.2, ls="--")
            axis.set_ylabel("images")
            axis.set_title(f"{side} ({', '.join(present)}; n = {len(own)}; line = median)", loc="left")
            axis.locator_params(axis="y", nbins=3, integer=True)
            if split:
                axis.legend(fontsize=8)
            axis.set_xlim(edges[0], edges[-1])
        axes[-1].set_xlabel("Anomaly score (no unit; higher = more abnormal)")
        for axis in axes[:-1]:
            axis.set_xticklabels([])
        return png(figure)


def _of_side(scores: pd.DataFrame, flag: str) -> pd.DataFrame:
    return scores[scores["normal"] == flag]


def detectors_roc_plot(curves: Mapping[str, pd.DataFrame], auroc: Mapping[str, float], ceiling: str) -> bytes:
    """Mean ROC curves of all detectors in one plot, the best by AUROC first in the legend; `ceiling` is dashed grey.

    Args:
        curves: by detector, as `mean_roc` takes them.
        auroc: by detector, where it is known.
    """
    ranked = sorted(curves, key=lambda name: (name == ceiling, -auroc.get(name, -1.0)))
    colours = [one for one in CYCLE if one != BLACK]
    looks = [(colour, dash) for dash in _DASHES for colour in colours]
    with house_style():
        figure, (axis,) = panels(1, columns=1, height=5.0, width=8.6)
        for place, name in enumerate(ranked):
            colour, dash = (GREY, "--") if name == ceiling else looks[place % len(looks)]
            shown = "\n".join(wrap(detector_title(name), 34))
            label = f"{auroc[name]:.2f}  {shown}" if name in auroc else shown
            roc_line(axis, mean_roc(curves[name])[0], color=colour, ls=dash, lw=1.7, label=label)
        axis.plot([0, 1], [0, 1], color=BLACK, lw=0.6, ls=":")
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel="1 − specificity", ylabel="Sensitivity")
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, title="AUROC", alignment="left")
        return png(figure)
