"""What the arms' classifiers look at, on the same test images: some by lot, and those on which two arms differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.config.arms import REFERENCE_ARM
from pipeline.core.layout import ATTENTION, ATTENTION_MAPS
from pipeline.core.seeds import numpy_generator
from pipeline.report.picture import Picture
from pipeline.report.reading import Run, ordered_arms
from pipeline.report.sheets import axial_planes, open_images, small_png, to_grey
from pipeline.report.style import drawn, house_style
from pipeline.report.words import arm_title, count, named_arm

_MOST_ARMS, _ROWS = 5, 4
_INCH = 1.45
_WIDTH = 1440


@dataclass(frozen=True)
class Attended:
    """Maps of the fold that is named for release.

    Attributes:
        table: columns arm, image_id, classifiers, and by `stage` and `place` where in `maps` a row's map is.
        maps: by stage, memory-mapped [rows, *grid] uint8.
    """

    table: pd.DataFrame
    maps: dict[str, np.ndarray]

    def plane(self, arm: str, image_id: str) -> np.ndarray:
        """The map [rows, columns] that is shown of an arm and an image: of a volume its middle axial plane."""
        row = self.table[(self.table["arm"] == arm) & (self.table["image_id"] == image_id)].iloc[0]
        return _middle(self.maps[row["stage"]][row["place"]])


def attention_picture(run: Run) -> Picture | None:
    """Grad-CAM of each arm with a network of its own; None where the run kept no maps."""
    found = _read(run)
    if found is None:
        return None
    arms, pair = _shown_arms(run, found)
    scores = _own_class_scores(run)
    by_lot, differing = _chosen(run, found, scores, pair)
    rows = pd.concat([by_lot, differing])
    figure = _figure(run, found, rows, arms, scores, len(by_lot))
    least = int(found.table["classifiers"].astype(int).min())
    grid = " × ".join(map(str, next(iter(found.maps.values())).shape[1:]))
    told = (
        f" Below the line: of {len(found.table['image_id'].unique())} test images the {len(differing)} on which "
        f"{' and '.join(named_arm(arm) for arm in pair)} differ most."
        if len(differing)
        else ""
    )
    caption = (
        f"Grad-CAM, fold {run.experiment.release.fold}, mean over {count(least, 'classifier')} an arm: bright is where "
        "a classifier finds what speaks for the image's own class. Numbers: mean probability of that class. First: "
        f"test images by lot, one a class where possible.{told} Maps are coarse (kept on {grid}), and each is scaled "
        "to its own largest value: compare places, not brightness. They say where, not why; a map that looks "
        "sensible does not make a classifier right."
    )
    alt = f"{len(rows)} test images with heat maps of {count(len(arms), 'arm')}, a row an image and a column an arm."
    with house_style():
        return Picture("attention", alt, caption, small_png(drawn(figure), _WIDTH, 1_200_000))


def _read(run: Run) -> Attended | None:
    release, tables, maps = run.experiment.release, [], {}
    for stage in run.of_kind("downstream"):
        kept = (stage.directory / ATTENTION).is_file()
        if kept and stage.fold == release.fold and stage.gan_seed in (None, release.gan_seed):
            table = stage.table(ATTENTION, ("arm", "image_id", "classifiers"))
            maps[stage.name] = np.load(stage.file(ATTENTION_MAPS), mmap_mode="r", allow_pickle=False)
            tables.append(table.assign(stage=stage.name, place=range(len(table))))
    return Attended(pd.concat(tables, ignore_index=True), maps) if tables else None


def _shown_arms(run: Run, found: Attended) -> tuple[list[str], tuple[str, ...]]:
    """Which arms have a column, and the two that the verdict compares, where both have maps."""
    arms = ordered_arms(run, found.table["arm"])
    evidence = run.verdict["utility"]["evidence"]
    pair = tuple(str(evidence.get(name)) for name in ("reference", "arm"))
    pair = pair if set(pair) <= set(arms) else ()
    first = dict.fromkeys([*pair, *[arm for arm in arms if arm == REFERENCE_ARM], *arms])
    return ordered_arms(run, list(first)[:_MOST_ARMS]), pair


def _own_class_scores(run: Run) -> pd.DataFrame:
    """Mean probability of an image's own class, by image and arm, over the fits of the fold named for release."""
    release, test = run.experiment.release, run.predictions[run.predictions["split"] == "test"]
    own = test[(test["fold"] == str(release.fold)) & test["gan_seed"].isin(["", str(release.gan_seed)])]
    columns = [f"score_{name}" for name in run.experiment.data.classes]
    place = pd.Index(run.experiment.data.classes).get_indexer(pd.Index(own["label"]))
    values = own[columns].to_numpy(float)[np.arange(len(own)), place]
    return own.assign(own=values).pivot_table(index="image_id", columns="arm", values="own", aggfunc="mean")


def _chosen(run: Run, found: Attended, scores: pd.DataFrame, pair: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images by lot, one a class first, and others on which the arms of `pair` differ most: image_id and label."""
    labels = run.manifest.set_index("image_id")["label"]
    ids = pd.Series(found.table["image_id"].unique())
    lot = ids.iloc[numpy_generator(run.experiment.seed, "report", "attention").permutation(len(ids))]
    table = pd.DataFrame({"image_id": lot, "label": lot.map(labels)})
    again = table.duplicated("label")
    by_lot = pd.concat([table[~again], table[again]])[:_ROWS]
    if not pair:
        return by_lot, by_lot[:0]
    rest = table[~table["image_id"].isin(by_lot["image_id"]) & table["image_id"].isin(scores.index)]
    gap = (scores[pair[1]] - scores[pair[0]]).abs()
    order = rest["image_id"].map(gap).sort_values(ascending=False, kind="stable")
    return by_lot, rest.loc[order.index[:_ROWS]]


def _figure(
    run: Run, found: Attended, rows: pd.DataFrame, arms: Sequence[str], scores: pd.DataFrame, above: int
) -> Figure:
    prepared = run.only("prepare")
    manifest, images = open_images(prepared)
    place = pd.Index(manifest["image_id"])
    scaling = prepared.record.extra["scaling"]
    with house_style():
        titles = ["Image", *("\n".join(wrap(arm_title(arm), 16)) for arm in arms)]
        figure, grid = _grid(len(rows), len(titles), lines=max(title.count("\n") + 1 for title in titles))
        for number, (line, row) in enumerate(zip(grid, rows.to_dict("records"), strict=True)):
            stored = images[int(place.get_loc(row["image_id"]))]
            grey = to_grey(_middle(stored[0]), scaling, scaling["window"])
            _tile(line[0], grey, None, "")
            line[0].set_ylabel(row["label"], fontsize=9)
            for axes, arm in zip(line[1:], arms, strict=True):
                known = arm in scores and row["image_id"] in scores.index
                said = f"{scores.loc[row['image_id'], arm]:.2f}" if known else ""
                _tile(axes, grey, found.plane(arm, row["image_id"]), said)
            if number == above:
                line[0].annotate("", (0, 1.03), (len(arms) + 1.2, 1.03), xycoords="axes fraction",
                                 arrowprops={"arrowstyle": "-", "color": "#555555"}, annotation_clip=False)  # fmt: skip
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=8.5)
        return figure


def _grid(rows: int, columns: int, *, lines: int) -> tuple[Figure, np.ndarray]:
    """A figure with axes [rows, columns], room for titles of so many lines above and for labels on the left.

    Everything is measured here: matplotlib's constrained layout asks every tile twice, and takes half of the drawing.
    """
    left, gap, top = 0.3, 0.1, 0.15 + 0.15 * lines
    width, height = left + columns * (_INCH + gap), top + rows * (_INCH + gap)
    figure = Figure(figsize=(width, height))
    room = {"left": left / width, "right": 1 - gap / width, "bottom": gap / height, "top": 1 - top / height}
    space = {"wspace": gap / _INCH, "hspace": gap / _INCH}
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw={**room, **space})


def _tile(axes: Axes, grey: np.ndarray, heat: np.ndarray | None, said: str) -> None:
    """The image in grey, its map over it, a number in the corner."""
    extent = (0, grey.shape[1], grey.shape[0], 0)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
    if heat is not None:
        axes.imshow(heat, cmap="inferno", vmin=0, vmax=255, alpha=0.55, extent=extent, interpolation="bilinear")
    if said:
        axes.text(0.96, 0.05, said, transform=axes.transAxes, ha="right", color="white", fontsize=8,
                  bbox={"facecolor": "black", "alpha": 0.6, "pad": 1.5, "lw": 0})  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def _middle(image: np.ndarray) -> np.ndarray:
    """An image [*spatial], or the middle axial plane of a volume, as it is shown."""
    return image if image.ndim == 2 else axial_planes(image[None])[image.shape[2] // 2]
