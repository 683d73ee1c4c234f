"""What a generator changes where one thing that it is asked for changes, and all else is held: a film strip a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from pipeline.core.files import safe_name
from pipeline.core.layout import SWEEPS, SWEPT_PLANES
from pipeline.report.picture import Picture
from pipeline.report.reading import Run, StageEntry
from pipeline.report.sheets import planes, small_png, to_grey
from pipeline.report.style import drawn, house_style

_COLUMNS = ("kind", "name", "latent", "label", "value")
_CLASS = "class"
_WIDEST = 8
_INCH = 1.15


def sweep_pictures(run: Run) -> list[Picture]:
    """A picture of each sweep of the generator named for release; none where its stage kept none."""
    stage = run.released("synthesise") or next(iter(run.of_kind("synthesise")), None)
    if stage is None or not (stage.directory / SWEEPS).is_file():
        return []
    table = stage.table(SWEEPS, _COLUMNS)
    kept = np.load(stage.file(SWEPT_PLANES), mmap_mode="r", allow_pickle=False)
    window = run.only("prepare").record.extra["scaling"]["window"]
    return list(_pictures(stage, table, to_grey(kept, stage.record.extra["scaling"], window)))


def _pictures(stage: StageEntry, table: pd.DataFrame, grey: np.ndarray) -> Iterator[Picture]:
    for (kind, name), part in table.groupby(["kind", "name"], sort=False):
        latents = part["latent"].nunique()
        frames = grey[part.index].reshape(latents, -1, *grey.shape[1:])
        values = part["value"].iloc[: frames.shape[1]].tolist()
        labels = part["label"].iloc[:: frames.shape[1]].tolist()
        is_class = kind == _CLASS
        ratio = change(frames, end_to_end=not is_class)
        shown = frames[:, :_WIDEST]
        rows = [f"Latent {number}" for number in range(1, latents + 1)] if is_class else labels
        columns = values if is_class else [f"{float(value):.3g}" for value in values]
        swept = "class" if is_class else f"{name}, from the 5th to the 95th percentile of the training images"
        held = "From class to class" if is_class else "From one end to the other"
        caption = (
            f"Sweep of {swept}, {stage.title}. {held} an image changes {ratio:.2f} times as much as from latent to "
            "latent (root mean square)."
        )
        alt = f"{latents} latents, a row each, asked for {'every class' if is_class else f'rising {name}'}."
        place = "sweep-class" if is_class else f"sweep-of-{safe_name(str(name))}"
        yield Picture(
            place, alt, caption, _png(shown, rows, columns), None if is_class else _for_phone(shown, rows, columns)
        )


def _for_phone(frames: np.ndarray, rows: list[str], columns: list[str]) -> bytes:
    """Every other step: the ends and two between of seven."""
    return _png(frames[:, ::2], rows, columns[::2])


def _png(frames: np.ndarray, rows: list[str], columns: list[str]) -> bytes:
    return small_png(_drawn(frames, rows, columns), 1440, 700_000)


def change(frames: np.ndarray, *, end_to_end: bool) -> float:
    """How much images [latents, steps, ...] change along a row, over how much they change from latent to latent.

    Root mean square over pixels: of all pairs of a row, or of its first and last image (`end_to_end`), over that of all
    pairs of latents at the same step. 0 where a row does not change; NaN where latents do not.
    """
    pixels = frames.reshape(*frames.shape[:2], -1).astype(np.float64)
    along = pixels[:, [0, -1]] if end_to_end else pixels
    across = _mean_square(pixels.transpose(1, 0, 2))
    return float(np.sqrt(_mean_square(along) / across)) if across else float("nan")


def _mean_square(groups: np.ndarray) -> float:
    """Mean square difference of the pairs within each group: [groups, members, pixels]."""
    return float(2 * groups.var(axis=1, ddof=1).mean())


def _drawn(frames: np.ndarray, rows: list[str], columns: list[str]) -> Image.Image:
    latents, steps = frames.shape[:2]
    with house_style():
        figure = Figure(figsize=(_INCH * steps + 0.7, (_INCH + 0.06) * latents + 0.35), layout="constrained")
        grid = figure.subplots(latents, steps, squeeze=False)
        for line, images, row in zip(grid, frames, rows, strict=True):
            for axes, image in zip(line, images, strict=True):
                axes.imshow(planes(image)[0], cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
                axes.set(xticks=[], yticks=[], frame_on=False)
                axes.grid(visible=False)
            line[0].set_ylabel("\n".join(wrap(row, 14)), fontsize=8.5)
        for axes, column in zip(grid[0], columns, strict=False):
            axes.set_title("\n".join(wrap(column, 14)), fontsize=8.5)
        return drawn(figure)
