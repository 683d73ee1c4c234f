"""The picture of "Images worth believing in": grey values and power spectra, real beside synthetic."""

from __future__ import annotations

import pandas as pd

from pipeline.report.style import BLACK, GREY, VERMILLION, for_phone, house_style, panels, png

_SETS = {
    "train": ("real, training", BLACK, "-"),
    "val": ("real, validation", GREY, "--"),
    "synthetic": ("synthetic", VERMILLION, "-"),
}


def curves_plot(curves: pd.DataFrame, unit: str) -> tuple[bytes, bytes]:
    """Mean histogram of grey values and mean power spectrum of each set; and the same for a phone.

    Args:
        curves: columns set, curve, x and y, as the stage `quality` writes them.
        unit: of the grey values.
    """
    with house_style():
        figure, (left, right) = panels(2, columns=2, height=3.2)
        for name, (words, colour, line) in _SETS.items():
            own = curves[curves["set"] == name]
            for axes, curve in ((left, "histogram"), (right, "spectrum")):
                points = own[own["curve"] == curve]
                axes.plot(points["x"], points["y"], color=colour, ls=line, lw=1.4, label=words)
        inside = curves[(curves["curve"] == "histogram")].groupby("set")["y"].apply(lambda y: y.iloc[1:-1].max())
        left.set_ylim(0, 1.15 * float(inside.max()))
        left.set(title="Grey values", xlabel=f"Grey value ({unit})", ylabel="Share of pixels or voxels")
        right.set(title="Power spectrum", xlabel="Spatial frequency (cycles a pixel or voxel)", ylabel="Power (dB)")
        right.legend()
        return png(figure), png(for_phone(figure))
