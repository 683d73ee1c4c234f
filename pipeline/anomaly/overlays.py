"""Images with their anomaly maps over them, on a colour scale that normal validation images fix."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from pipeline.adversarial.pictures import orthogonal_planes
from pipeline.anomaly.detector import Detector, ImageSet

_COLOURS = "inferno"
_STRONGEST = 0.75
"""Opacity at the top of the scale; none at its foot."""
_REACH = 3
_SIDE = 256
"""Pixels that the longest side of a plane is enlarged to."""
_GAP = 6
_LOOKED_AT = 16
"""Normal images that the scale is taken from, at most."""
_DPI = 150


@dataclass(frozen=True)
class MapScale:
    """What maps of normal images reach: their median, and the value that 99 % of their voxels stay below."""

    median: float
    high: float

    @property
    def top(self) -> float:
        """Where the colours end: `_REACH` times as far above the median as `high`."""
        return self.median + _REACH * max(self.high - self.median, 1e-12)

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def map_scale(detector: Detector, normals: ImageSet) -> MapScale | None:
    """The scale that the maps of some normal validation images fix; None where the detector has no maps."""
    some = np.unique(np.linspace(0, len(normals) - 1, min(len(normals), _LOOKED_AT)).astype(int))
    found = [anomaly_map(detector, normals, int(one)) for one in some]
    maps = [one for one in found if one is not None]
    if not maps:
        return None
    median, high = np.quantile(np.concatenate([one.ravel() for one in maps]), [0.5, 0.99])
    return MapScale(float(median), float(high))


def anomaly_map(detector: Detector, images: ImageSet, number: int) -> np.ndarray | None:
    """The map [*spatial] of one image, or None where the detector has none."""
    with torch.inference_mode():
        found = detector.map(images.dataset.tensor(images.rows[number : number + 1]))
    return None if found is None else found[0].float().numpy()


@dataclass(frozen=True)
class Case:
    """An image to show.

    Attributes:
        image: [*spatial] in [-1, 1].
        map: [*spatial], or None.
    """

    title: str
    image: np.ndarray
    map: np.ndarray | None


def draw_cases(cases: Sequence[Case], scale: MapScale | None, columns: int) -> bytes:
    """The cases as PNG, each beside (volumes: above) itself under its map, `columns` to a row, with a colour bar.

    Volumes show their axial, coronal and sagittal planes through the map's highest voxel, or their middle ones.
    """
    tiles = [_composed(case, scale) for case in cases]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    ratio = max(tile.shape[0] / tile.shape[1] for tile in tiles)
    width = 9.6 / columns if columns > 1 else 5.6
    bar = 0.0 if scale is None else 0.8
    with rc_context({"font.size": 8.5, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width * columns, rows * (width * ratio + 0.45) + bar), layout="constrained", dpi=_DPI)
        axes = [figure.add_subplot(rows, columns, place + 1) for place in range(rows * columns)]
        for axis in axes:
            axis.set_axis_off()
        for axis, case, tile in zip(axes, cases, tiles, strict=False):
            axis.imshow(tile)
            axis.set_title(case.title, fontsize=8.5, loc="left")
        if scale is not None and any(case.map is not None for case in cases):
            _colour_bar(figure, axes, scale)
        return _png(figure)


def _colour_bar(figure: Figure, axes: list[Axes], scale: MapScale) -> None:
    """The colours as they look over a middle grey."""
    steps = np.linspace(scale.median, scale.top, 256)[None]
    colours = ListedColormap(_covered(np.full((1, 256, 3), 0.5), steps, scale)[0].tolist())
    mappable = ScalarMappable(Normalize(scale.median, scale.top), colours)
    bar = figure.colorbar(
        mappable, ax=axes, orientation="horizontal", extend="max", aspect=40, pad=0.02, fraction=0.05, shrink=0.6
    )
    ticks = {scale.median: "median", scale.high: "99th percentile", scale.top: f"{_REACH} times as far"}
    bar.set_ticks(list(ticks), labels=[f"{value:.3g}\n{words}" for value, words in ticks.items()])
    bar.set_label("anomaly map; its scale is fixed by the voxels of normal validation images")


def _png(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


def _composed(case: Case, scale: MapScale | None) -> np.ndarray:
    """One picture [rows, columns, 3] uint8 of an image and, where there is a map, of the image under it."""
    flat, map_ = case.image.ndim == 2, case.map
    through = None if map_ is None else tuple(int(one) for one in np.unravel_index(map_.argmax(), map_.shape))
    planes = [case.image] if flat else orthogonal_planes(case.image, through)
    greys = [np.repeat(_enlarged((plane + 1) / 2)[..., None], 3, axis=2) for plane in planes]
    if map_ is None or scale is None:
        return _joined([greys], flat)
    heats = [map_] if flat else orthogonal_planes(map_, through)
    covered = [_covered(grey, _enlarged(heat), scale) for grey, heat in zip(greys, heats, strict=True)]
    return _joined([greys, covered], flat)


def _covered(grey: np.ndarray, heat: np.ndarray, scale: MapScale) -> np.ndarray:
    """A grey picture [rows, columns, 3] under its map, in [0, 1]; what normal images have too stays clear."""
    share = np.clip((heat - scale.median) / (scale.top - scale.median), 0, 1)
    opacity = _STRONGEST * share[..., None]
    return (1 - opacity) * grey + opacity * colormaps[_COLOURS](share)[..., :3]


def _enlarged(plane: np.ndarray) -> np.ndarray:
    """The plane with its longest side `_SIDE` pixels, linear between voxels."""
    factor = _SIDE / max(plane.shape)
    size = (max(1, round(plane.shape[1] * factor)), max(1, round(plane.shape[0] * factor)))
    resized: Any = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)).resize(
        size, Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


def _joined(lines: Sequence[Sequence[np.ndarray]], flat: bool) -> np.ndarray:
    """2D: side by side; volumes: planes side by side, the lines below one another. White between."""
    if flat:
        return _bytes(_beside([picture for line in lines for picture in line]))
    return _bytes(np.concatenate([_beside(line) for line in lines]))


def _beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    height = max(picture.shape[0] for picture in pictures)
    return np.concatenate(
        [
            np.pad(picture, ((0, height - picture.shape[0] + _GAP), (0, _GAP), (0, 0)), constant_values=1.0)
            for picture in pictures
        ],
        axis=1,
    )


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
