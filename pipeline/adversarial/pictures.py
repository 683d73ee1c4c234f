"""Sample grids and the film strip, drawn while training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.core.files import atomic_path

_GAP = 2
_MIN_SIDE = 56
_LETTERS, _HEADING, _WIDEST = 13, 20, 160
"""Pixels: height of letters and of a frame's heading, and the most that names of classes may take."""


def save_grid(path: Path, images: np.ndarray, columns: int) -> None:
    """Write images [N, C, *spatial] in [-1, 1] as a grid of `columns`, row by row; a volume as its middle planes."""
    tiles = [tile(image) for image in images]
    rows = [_beside(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    _save(path, _below(rows))


def save_film_strip(path: Path, frames: list[Path], counts: list[int], classes: Sequence[str]) -> None:
    """Stack the grids in `frames` under each other, each under the number of training images it was drawn at.

    Args:
        classes: names of a grid's rows, which are equally high.
    """
    font = ImageFont.load_default(size=_LETTERS)
    margin = _GAP + min(max(math.ceil(font.getlength(name)) for name in classes) + 4, _WIDEST)
    strips = []
    for frame, count in zip(frames, counts, strict=True):
        with Image.open(frame) as opened:
            strip = opened.convert("L")
        labelled = Image.new("L", (margin + strip.width, strip.height + _HEADING), 255)
        drawing = ImageDraw.Draw(labelled)
        for row, name in enumerate(classes):
            down = _HEADING + (row + 0.5) * strip.height / len(classes)
            drawing.text((_GAP, down), name, fill=0, font=font, anchor="lm")
        labelled.paste(strip, (margin, _HEADING))
        drawing.text((margin, 2), f"after {count:,} images", fill=0, font=font)
        strips.append(np.asarray(labelled))
    _save(path, _below(strips))


def tile(image: np.ndarray) -> np.ndarray:
    """One image [C, *spatial] in [-1, 1] as grey uint8 [rows, columns], enlarged to be seen.

    In 3D: the axial, coronal and sagittal middle planes under each other, as a radiologist sees a RAS+ volume.
    """
    first = image[0]
    planes = [first] if first.ndim == 2 else orthogonal_planes(first)
    factor = max(1, -(-_MIN_SIDE // max(planes[0].shape)))
    shown = [np.kron(plane, np.ones((factor, factor), dtype=plane.dtype)) for plane in planes]
    width = max(plane.shape[1] for plane in shown)
    padded = [np.pad(plane, ((0, 0), (0, width - plane.shape[1])), constant_values=-1) for plane in shown]
    return np.clip((np.concatenate(padded) + 1) * 127.5, 0, 255).astype(np.uint8)


def orthogonal_planes(volume: np.ndarray, through: tuple[int, ...] | None = None) -> list[np.ndarray]:
    """Axial, coronal and sagittal planes of [X, Y, Z] in RAS+: anterior or superior up, right at the left.

    Args:
        through: index of a voxel that the planes meet in; None = the middle.
    """
    x, y, z = through or (side // 2 for side in volume.shape)
    return [volume[::-1, ::-1, z].T, volume[::-1, y, ::-1].T, volume[x, ::-1, ::-1].T]


def _beside(tiles: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.pad(one, ((0, 0), (0, _GAP)), constant_values=255) for one in tiles], axis=1)


def _below(rows: list[np.ndarray]) -> np.ndarray:
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, _GAP), (0, width - row.shape[1])), constant_values=255) for row in rows], axis=0
    )


def _save(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", optimize=True)
