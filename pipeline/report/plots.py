"""The report's plots, each from a table: arms, ROC curves, training curves, nearest images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.report.style import BLACK, BLUE, CYCLE, GREY, ORANGE, VERMILLION, for_phone, house_style, panels, png
from pipeline.report.words import arm_lines, arm_title, confidence, metric_name

FOREST_METRICS = ("sensitivity", "specificity", "auroc")
ROC_GRID = np.linspace(0.0, 1.0, 201)
_MOST_POINTS = 300


def difference_plot(evidence: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The primary difference with its interval, zero and the margin; and the same for a phone."""
    points, low, high = (100 * float(evidence[key]) for key in ("difference", "ci_low", "ci_high"))
    margin = 100 * float(evidence["margin"])
    with house_style():
        figure, (axes,) = panels(1, columns=1, height=1.5, width=7.2)
        reach = min(1.25 * max(abs(low), abs(high), abs(points), margin), 100.0)
        axes.axvspan(margin, reach, color=BLUE, alpha=0.10, lw=0)
        axes.axvline(0, color=BLACK, lw=1)
        axes.axvline(margin, color=BLUE, lw=1.2, ls="--")
        axes.text(margin, 0.75, f" margin {margin:.1f}", color=BLUE, va="center")
        axes.plot([low, high], [0, 0], color=VERMILLION, lw=2.5, solid_capstyle="butt")
        axes.plot([points], [0], "s", color=VERMILLION, ms=8)
        axes.set(xlim=(-reach, reach), ylim=(-1, 1), yticks=[])
        axes.spines["left"].set_visible(False)
        endpoint = metric_name(str(evidence["endpoint"]))
        said = f"Difference in {endpoint}, points, with {confidence(evidence)} interval"
        axes.set_xlabel(f"{said} (right = synthetic images help)")
        wide = png(figure)
        axes.set_xlabel(f"{said}\n(right = synthetic images help)")
        return wide, png(for_phone(figure, height=1.7))


def forest_plot(means: pd.DataFrame, fits: pd.DataFrame, arms: Sequence[str], reference: str) -> tuple[bytes, bytes]:
    """Sensitivity, specificity and AUROC of the arms with intervals; faint dots are single fits. The same for a phone.

    Args:
        means, fits: rows of metrics.csv for the disease side, mean over fits and single fits.
    """
    with house_style():
        names = [arm_lines(arm) for arm in arms]
        shown = [metric for metric in FOREST_METRICS if (means["metric"] == metric).any()]
        figure, axes = panels(len(shown), columns=len(shown), height=1.1 + 0.55 * len(arms))
        for axis, metric in zip(axes, shown, strict=True):
            _forest_panel(axis, means[means["metric"] == metric], fits[fits["metric"] == metric], arms, reference)
            axis.set_title(metric_name(metric))
            axis.set_xlabel(f"{metric_name(metric)} (0 to 1)")
            axis.set_yticks(range(len(arms)), labels=names if axis is axes[0] else [""] * len(arms))
        wide = png(figure)
        for axis in axes:
            axis.set_yticks(range(len(arms)), labels=names)
        return wide, png(for_phone(figure))


def _forest_panel(axis: Axes, means: pd.DataFrame, fits: pd.DataFrame, arms: Sequence[str], reference: str) -> None:
    for row, arm in enumerate(arms):
        single = fits.loc[fits["arm"] == arm, "value"]
        axis.plot(single, [row + 0.24] * len(single), ".", color=GREY, alpha=0.55, ms=4)
        for value, low, high in means.loc[means["arm"] == arm, ["value", "ci_low", "ci_high"]].itertuples(index=False):
            known = np.isfinite(low) and np.isfinite(high)
            if known:
                axis.plot([low, high], [row, row], color=BLUE, lw=2.2, solid_capstyle="butt")
            axis.plot([value], [row], "s", color=BLUE, mfc=BLUE if known else "white", ms=6.5)
            if arm == reference:
                axis.axvline(value, color=ORANGE, lw=1.2, ls="--")
    axis.set_ylim(len(arms) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlim(right=min(axis.get_xlim()[1], 1.01))


def roc_curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates from (0, 0) to (1, 1), one point a distinct score.

    Args:
        scores: disease scores [N], higher = more diseased.
        positive: disease or not [N], with at least one of each.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[ends]
    alarms = ends + 1 - hits
    return np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1])


def mean_roc(predictions: pd.DataFrame) -> tuple[np.ndarray, list[np.ndarray]]:
    """Vertical average of the fits' ROC curves over `ROC_GRID`, and the curves (Fawcett 2006, section 9.1).

    Args:
        predictions: one arm's test rows with fold, seed, gan_seed, `disease_score` and `diseased`.
    """
    curves = []
    for _, fit in predictions.groupby(["fold", "seed", "gan_seed"], sort=True):
        positive = fit["diseased"].to_numpy(dtype=bool)
        if positive.any() and not positive.all():
            curves.append(np.interp(ROC_GRID, *roc_curve(fit["disease_score"].to_numpy(dtype=float), positive)))
    return np.mean(curves, axis=0) if curves else np.full_like(ROC_GRID, np.nan), curves


def roc_plot(
    predictions: pd.DataFrame, means: pd.DataFrame, arms: Sequence[str], reference: str
) -> tuple[bytes, bytes]:
    """One panel an arm: mean ROC curve, single fits faintly, the reference arm in grey and the operating point.

    The same for a phone.
    """
    averages = {arm: mean_roc(predictions[predictions["arm"] == arm]) for arm in arms}
    with house_style():
        columns = min(4, max(2, len(arms)))
        figure, axes = panels(len(arms), columns=columns, height=9.6 / columns + 0.45)
        for axis, arm in zip(axes, arms, strict=True):
            mean, single = averages[arm]
            for curve in single:
                roc_line(axis, curve, color=BLUE, lw=0.6, alpha=0.25)
            if arm != reference and reference in averages:
                roc_line(axis, averages[reference][0], color=GREY, lw=1.4, ls="--", label=arm_title(reference).lower())
            roc_line(axis, mean, color=BLUE, lw=2.2, label="mean over fits")
            rows = means[means["arm"] == arm].set_index("metric")["value"]
            if {"sensitivity", "specificity"} <= set(rows.index):
                axis.plot(
                    [1 - rows["specificity"]],
                    [rows["sensitivity"]],
                    "D",
                    color=VERMILLION,
                    ms=6,
                    label="operating point",
                )
            axis.plot([0, 1], [0, 1], color=BLACK, lw=0.6, ls=":")
            axis.set(
                xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel="1 − specificity", ylabel="Sensitivity"
            )
            axis.set_title(arm_lines(arm))
            axis.legend(loc="lower right", fontsize=7.5, handlelength=1.4, borderpad=0.1)
        return png(figure), png(for_phone(figure))


def roc_line(axis: Axes, curve: np.ndarray, **look: Any) -> None:
    axis.plot(np.append(0.0, ROC_GRID), np.append(0.0, curve), **look)


_CURVES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("Losses", "loss (no unit)", {"discriminator_loss": "discriminator", "generator_loss": "generator"}),
    (
        "Discriminator's opinion",
        "logit (no unit; high = “real”)",
        {"real_logits": "of real images", "fake_logits": "of fakes"},
    ),
    ("Speed", "images / s", {"images_per_s": ""}),
)
_NOT_CURVES = {"num_images", "step", "seconds", "time", "real_sign"}


def training_plot(histories: Mapping[str, pd.DataFrame], released: str) -> tuple[bytes, bytes]:
    """Training curves of the GANs over the number of real images shown; `released` is drawn bold, the others faintly.

    The same for a phone.

    Args:
        histories: by GAN, a table with num_images and other numeric columns.
    """
    known = {column for _, _, columns in _CURVES for column in columns} | _NOT_CURVES
    present = {column for history in histories.values() for column in history.columns}
    wanted = [curve for curve in _CURVES if present & set(curve[2])]
    wanted += [(_curve_name(column), column, {column: ""}) for column in sorted(present - known)]
    longest = max(history["num_images"].max() for history in histories.values())
    unit, name = (1000, "thousands of ") if longest >= 10_000 else (1, "")
    with house_style():
        figure, axes = panels(len(wanted), columns=3, height=2.7)
        for axis, (title, label, columns) in zip(axes, wanted, strict=True):
            for color, (column, word) in zip((BLUE, VERMILLION), columns.items(), strict=False):
                for gan, history in histories.items():
                    if column in history.columns:
                        bold = gan == released
                        look: dict[str, Any] = {"lw": 1.6} if bold else {"lw": 0.9, "alpha": 0.35}
                        means = _thinned(history[["num_images", column]].dropna())
                        axis.plot(
                            means["num_images"] / unit, means[column], color=color, label=word if bold else "", **look
                        )
            axis.set(title=title, ylabel=label, xlabel=f"{name}real images shown")
            axis.locator_params(axis="x", nbins=5)
            if any(columns.values()):
                axis.legend(fontsize=8)
        return png(figure), png(for_phone(figure))


def _curve_name(column: str) -> str:
    """`discriminator.gradient_penalty`, a term of a player's loss, as `Discriminator: gradient penalty`."""
    return metric_name(column.replace(".", ": "))


def _thinned(history: pd.DataFrame) -> pd.DataFrame:
    """Means of neighbouring rows, so that at most `_MOST_POINTS` points are drawn."""
    width = -(-len(history) // _MOST_POINTS) or 1
    return history.groupby(np.arange(len(history)) // width).mean()


def nearest_plot(pairs: Mapping[str, pd.DataFrame]) -> bytes:
    """Per GAN, each synthetic image's distance to its nearest training and its nearest held-out image.

    Args:
        pairs: by GAN, nearest_train_distance and nearest_heldout_distance of its synthetic images.
    """
    with house_style():
        columns = min(3, max(2, len(pairs)))
        figure, axes = panels(len(pairs), columns=columns, height=9.6 / columns)
        for axis, color, (gan, table) in zip(axes, _repeat(CYCLE[1:], len(pairs)), pairs.items(), strict=True):
            train, heldout = table["nearest_train_distance"], table["nearest_heldout_distance"]
            low, high = min(train.min(), heldout.min()), max(train.max(), heldout.max())
            axis.plot([low, high], [low, high], color=BLACK, lw=0.8, ls=":")
            axis.plot(heldout, train, "o", color=color, ms=3.5, alpha=0.5, mec="none")
            axis.set(title=gan, aspect="equal")
            axis.set(xlabel="distance to nearest held-out", ylabel="distance to nearest training")
        return png(figure)


def _repeat(colors: Sequence[str], length: int) -> list[str]:
    return [colors[index % len(colors)] for index in range(length)]
