"""One look for all plots: the colours of Okabe and Ito, and figures as PNG bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import TightLayoutEngine
from PIL import Image

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, BLACK = "#56B4E9", "#CC79A7", "#222222"
GREY = "#8A8A8A"
CYCLE = (BLACK, BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_DPI = 160
_SETTINGS: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # looked for otherwise, a tenth of the drawing
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.parse_math": False,
    "figure.facecolor": "white",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house's look; names of classes and arms are never read as formulas."""
    with rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


PHONE = 4.2
"""Inches across of a plot for a phone, whose panels stand below one another."""


class _OnePass(TightLayoutEngine):
    """Margins that panels need, found in one pass; the two of matplotlib's "constrained" cost more than the drawing.

    They are those of panels that fill their places: one with equal axes is smaller, and takes its title with it.
    """

    def execute(self, fig: Figure) -> None:
        aspects = [axes.get_aspect() for axes in fig.axes]
        for axes in fig.axes:
            axes.set_aspect("auto")
        super().execute(fig)
        for axes, aspect in zip(fig.axes, aspects, strict=True):
            axes.set_aspect(aspect)


def panels(count: int, *, columns: int, height: float, width: float = 9.6) -> tuple[Figure, list[Axes]]:
    """A figure of `width` inches with `count` small panels, `columns` to a row of `height` inches."""
    rows = -(-count // columns)
    figure = Figure(figsize=(width, height * rows), layout=_OnePass(pad=0.4, h_pad=0.8, w_pad=0.8))
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    return figure, axes


def for_phone(figure: Figure, *, height: float | None = None) -> Figure:
    """The same figure from now on `PHONE` inches wide, its panels below one another.

    Args:
        height: inches of a panel; that which it had, but no more than `PHONE`, unless given.
    """
    axes = figure.axes
    grid = axes[0].get_gridspec()
    assert grid is not None, "the figure is made by panels()"
    figure.set_size_inches(PHONE, len(axes) * (height or min(figure.get_figheight() / grid.nrows, PHONE)))
    below = GridSpec(len(axes), 1, figure=figure)
    for row, one in enumerate(axes):
        one.set_subplotspec(below[row])
    return figure


def drawn(figure: Figure, dpi: int = _DPI) -> Image.Image:
    """The figure as a picture; the same figure always gives the same pixels."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes without metadata."""
    buffer = io.BytesIO()
    drawn(figure).save(buffer, format="PNG")
    return buffer.getvalue()
