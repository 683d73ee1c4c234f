"""Pictures of images: real beside synthetic in the same grey scale, and other stages' pictures made small."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from pipeline.core.layout import IMAGES, MANIFEST
from pipeline.core.patients import patient_units
from pipeline.core.seeds import numpy_generator
from pipeline.report.reading import Run, StageEntry
from pipeline.report.style import drawn, house_style

_WIDTH = 1440
_GAP = 6
_DPI = 150


@dataclass(frozen=True)
class Pool:
    """Images of one data set directory, one class: [N, C, *spatial] as grey values 0 to 255."""

    label: str
    images: np.ndarray


def open_images(stage: StageEntry) -> tuple[pd.DataFrame, np.ndarray]:
    """Manifest and memory-mapped stored images [N, C, *spatial] of a data set directory; row i is image i."""
    manifest = stage.table(MANIFEST, ("image_id", "label", "patient_id"))
    return manifest, np.load(stage.file(IMAGES), mmap_mode="r", allow_pickle=False)


def to_grey(stored: np.ndarray, scaling: dict[str, float], window: Sequence[float]) -> np.ndarray:
    """Stored numbers to 0 … 255, `window` (physical units) spanning the range."""
    low, high = window
    physical = np.asarray(stored, dtype=np.float32) * scaling["scale"] + scaling["offset"]
    return np.rint(np.clip((physical - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def real_rows(run: Run, fold: int | None, manifest: pd.DataFrame, label: str, count: int) -> list[int]:
    """Rows of up to `count` training images of the fold, drawn by the run's seed, first one a patient."""
    splits = run.splits
    train = splits[(splits["fold"] == str(fold)) & (splits["split"] == "train")]
    rows = np.flatnonzero((manifest["label"] == label) & manifest["image_id"].isin(train["image_id"]))
    drawn = numpy_generator(run.experiment.seed, "report", label).permutation(rows)
    repeated = patient_units(manifest.iloc[drawn]).duplicated().to_numpy()
    return [int(row) for row in np.concatenate([drawn[~repeated], drawn[repeated]])[:count]]


def sample_sheet(run: Run, prepared: StageEntry, synthetic: StageEntry) -> bytes:
    """Training images left, synthetic images right, one block a class, one grey scale for all.

    3D volumes show their middle axial, coronal and sagittal planes below one another.
    """
    window = prepared.record.extra["scaling"]["window"]
    columns = 6 if run.experiment.data.spatial_dims == 2 else 5
    blocks = []
    for label in run.experiment.data.classes:
        pools = []
        for stage in (prepared, synthetic):
            manifest, images = open_images(stage)
            rows = (
                real_rows(run, synthetic.fold, manifest, label, columns)
                if stage is prepared
                else np.flatnonzero(manifest["label"] == label)[:columns].tolist()
            )
            pools.append(Pool(label, to_grey(images[rows], stage.record.extra["scaling"], window)))
        blocks.append((pools[0], pools[1]))
    return _drawn_sheet(blocks, columns)


def _drawn_sheet(blocks: Sequence[tuple[Pool, Pool]], columns: int) -> bytes:
    """The sheet as PNG: a title a half, a heading a class."""
    tile = (_WIDTH - 4 * _GAP) // (2 * columns) - _GAP
    halves = [[_half(pool, columns, tile) for pool in pair] for pair in blocks]
    top, heading = 40, 34
    height = top + sum(heading + left.shape[0] + _GAP for left, _ in halves)
    with house_style():
        figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI)
        right = _WIDTH - halves[0][1].shape[1]
        for x, text in ((0, "Real: training images"), (right, "Synthetic")):
            figure.text(x / _WIDTH, 1 - 4 / height, text, va="top", fontsize=11, fontweight="bold")
        down = top
        for (pool, _), pair in zip(blocks, halves, strict=True):
            figure.text(0, 1 - (down + 4) / height, pool.label, va="top", fontsize=9.5)
            down += heading
            for x, half in zip((0, right), pair, strict=True):
                figure.figimage(
                    half, xo=x, yo=height - down - half.shape[0], cmap="gray", vmin=0, vmax=255, origin="upper"
                )
            down += pair[0].shape[0] + _GAP
        return small_png(drawn(figure, _DPI), _WIDTH, 1_000_000)


def _half(pool: Pool, columns: int, tile: int) -> np.ndarray:
    """Tiles of one class side by side, planes below one another, on white."""
    volumes = [planes(image) for image in pool.images]
    count = 1 if pool.images.ndim == 4 else 3
    strips = []
    for plane in range(count):
        tiles = [_tile(volume[plane], tile) for volume in volumes]
        blank = np.full((tile, tile), 255, dtype=np.uint8)
        row = [
            np.pad(one, ((0, _GAP), (0, _GAP)), constant_values=255) for one in [*tiles, *[blank] * columns][:columns]
        ]
        strips.append(np.concatenate(row, axis=1)[:, :-_GAP])
    return np.concatenate(strips)[:-_GAP]


def planes(image: np.ndarray) -> list[np.ndarray]:
    """Planes shown of an image [C, *spatial], first channel: itself in 2D; middle axial, coronal and sagittal in 3D.

    Volumes have RAS axes (as `prepare` leaves them) and are shown as radiologists do: the patient's right on the left,
    front up in axial planes, head up in the others, face to the left in sagittal ones.
    """
    first = image[0]
    if first.ndim == 2:
        return [first]
    x, y, z = (size // 2 for size in first.shape)
    return [axial_planes(image)[z], first[::-1, y, ::-1].T, first[x, ::-1, ::-1].T]


def axial_planes(image: np.ndarray) -> list[np.ndarray]:
    """All axial planes of a volume [C, x, y, z], from the feet up, as `planes` shows the middle one."""
    return [image[0][::-1, ::-1, z].T for z in range(image.shape[-1])]


def _tile(plane: np.ndarray, side: int) -> np.ndarray:
    """The plane enlarged to fit `side` x `side` with its aspect kept, centred on black."""
    factor = side / max(plane.shape)
    size = (max(1, round(plane.shape[1] * factor)), max(1, round(plane.shape[0] * factor)))
    picture = Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BICUBIC)
    tile = Image.new("L", (side, side), 0)
    tile.paste(picture, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(tile)


def stored_png(path: Path, width: int, most_bytes: int) -> bytes:
    """Another stage's PNG at `width` pixels at most and below `most_bytes`."""
    with Image.open(path) as picture:
        return small_png(picture, width, most_bytes)


def small_png(picture: Image.Image, width: int, most_bytes: int) -> bytes:
    """The picture as PNG without metadata, made smaller until it fits; grey pictures are stored as grey."""
    picture = picture.convert("RGB")
    bands = np.asarray(picture)
    if (bands == bands[..., :1]).all():
        picture = picture.convert("L")
    while True:
        if picture.width > width:
            shape = (width, max(1, round(picture.height * width / picture.width)))
            picture = picture.resize(shape, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")  # "optimize" takes four times as long for 2 % of the bytes
        if buffer.tell() <= most_bytes or width < 200:
            return buffer.getvalue()
        width = min(round(width * 0.85), round(picture.width * 0.85))
