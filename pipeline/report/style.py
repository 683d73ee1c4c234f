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


def panels(
    count: int, *, columns: int, height: float, width: float = 9.6, phone: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` inches with `count` small panels, `columns` to a row of `height` inches.

    For a phone the figure is `PHONE` inches wide and has a panel a row, no higher than that.
    """
    if phone:
        columns, height, width = 1, min(height, PHONE), PHONE
    rows = -(-count // columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    return figure, axes


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
