"""The rule by which images of any size become arrays of one size, as a chain of steps.

3D volumes are first turned to RAS axes. Then, along the array's own axes:

* `spacing`: resampled to that many mm a voxel;
* `crop`: a cube (square) of `size_mm` around the lesion's mask, its point or the centre, sampled as `shape`;
* without a crop, `fit: pad` keeps the aspect (in mm): the longest side fills `shape`, and the rest is padded. An image
  with even spacing that is smaller than `shape` by less than a quarter (28 for 32) is only padded, never enlarged.
  `fit: stretch` makes every side fill `shape`.

Down-sampling takes area means, up-sampling is linear, masks take the nearest voxel. What lies outside the image is 0:
callers subtract the lowest value first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from pipeline.config.data import CropConfig
from pipeline.core.errors import DataError
from pipeline.data.resampling import AxisGrid, Floats, resample, resample_nearest

ENLARGED_FROM = 0.75
_RAS = orientations.axcodes2ornt(("R", "A", "S"))


@dataclass(frozen=True)
class Placed:
    """An array in the patient.

    Attributes:
        array: [C, *spatial].
        affine: 4 x 4, from voxel index in array axis order (2D: row, col, 0) to RAS mm.
    """

    array: NDArray[Any]
    affine: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape[1:]

    @property
    def spacing(self) -> tuple[float, ...]:
        """mm a voxel on each axis."""
        return tuple(np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0).tolist())


@dataclass(frozen=True)
class Item:
    """An image with what belongs to it.

    Attributes:
        name: of its file, for messages.
        mask: on the image's grid, above 0 inside.
        point: a place in RAS mm, NaN where unknown (2D: the slice's own third coordinate is taken).
    """

    name: str
    image: Placed
    mask: Placed | None = None
    point: tuple[float, float, float] | None = None


Step = Callable[[Item], Item]


def geometry(shape: tuple[int, ...], *, spacing: tuple[float, ...] | None, crop: CropConfig | None, fit: str) -> Step:
    """The transform of one item: its image comes back as [C, *shape] with its affine.

    Raises (when called):
        DataError: the mask is empty or lies on another grid, or the point is outside the image.
    """
    steps: list[Step] = [_towards_ras] if len(shape) == 3 else []
    steps.append(_on_one_grid)
    if spacing is not None:
        steps.append(partial(_resampled, grids=partial(_spaced, spacing=spacing)))
    last = partial(_fitted, shape=shape, fit=fit) if crop is None else partial(_cropped, shape=shape, crop=crop)
    steps.append(partial(_resampled, grids=last))

    return partial(_in_turn, steps=steps)  # which, unlike a function within this one, goes to other processes


def _in_turn(item: Item, steps: Sequence[Step]) -> Item:
    for step in steps:
        item = step(item)
    return item


def _towards_ras(item: Item) -> Item:
    """Volumes with their axes flipped and swapped until they run to right, anterior and superior."""
    return replace(item, image=_turned(item.image), mask=None if item.mask is None else _turned(item.mask))


def _turned(volume: Placed) -> Placed:
    turn = orientations.ornt_transform(orientations.io_orientation(volume.affine), _RAS)
    array = np.stack([orientations.apply_orientation(channel, turn) for channel in volume.array])
    return Placed(array, volume.affine @ orientations.inv_ornt_aff(turn, volume.shape))


def _on_one_grid(item: Item) -> Item:
    """Refuse a mask that is not on the image's grid (shape; in 3D also the place of its corners, to half a voxel)."""
    image, mask = item.image, item.mask
    if mask is None:
        return item
    same = image.shape == mask.shape
    if same and len(image.shape) == 3:
        corners = np.array([[0, 0, 0, 1], [*(size - 1 for size in image.shape), 1]]).T
        apart = (image.affine - mask.affine) @ corners
        same = bool(np.abs(apart).max() <= 0.5 * min(image.spacing))
    if not same:
        raise DataError(
            f"{item.name}: the mask does not lie on the image's grid ({_sides(mask)}, {_sides(image)}). "
            "Resample the mask to the image."
        )
    return item


def _resampled(item: Item, grids: Callable[[Item], list[AxisGrid]]) -> Item:
    """Image and mask on the grids that `grids` gives for the item."""
    found = grids(item)
    image = Placed(resample(item.image.array, found), _moved(item.image.affine, found))
    if item.mask is None:
        return replace(item, image=image)
    mask = Placed(resample_nearest(item.mask.array, found), _moved(item.mask.affine, found))
    return replace(item, image=image, mask=mask)


def _spaced(item: Item, spacing: tuple[float, ...]) -> list[AxisGrid]:
    """The whole image at `spacing` mm a voxel."""
    grids = []
    for size, mm, wanted in zip(item.image.shape, item.image.spacing, spacing, strict=True):
        count = max(1, round(size * mm / wanted))
        grids.append(AxisGrid.centred((size - 1) / 2, wanted / mm, count))
    return grids


def _fitted(item: Item, shape: tuple[int, ...], fit: str) -> list[AxisGrid]:
    """The whole image as `shape`, by `fit`: pad or stretch."""
    sizes, spacing, target = np.array(item.image.shape), np.array(item.image.spacing), np.array(shape)
    if fit == "stretch":
        return [AxisGrid.whole(int(size), int(count)) for size, count in zip(sizes, target, strict=True)]
    filled = float((sizes / target).max())
    if np.allclose(spacing, spacing[0], rtol=1e-3) and ENLARGED_FROM < filled <= 1:
        starts = -((target - sizes) // 2)
        return [AxisGrid(float(start), 1.0, int(count)) for start, count in zip(starts, target, strict=True)]
    voxel = float((sizes * spacing / target).max())
    return [
        AxisGrid.centred((int(size) - 1) / 2, voxel / float(mm), int(count))
        for size, mm, count in zip(sizes, spacing, target, strict=True)
    ]


def _cropped(item: Item, shape: tuple[int, ...], crop: CropConfig) -> list[AxisGrid]:
    """A cube (square) of `crop.size_mm` around the lesion or the centre, as `shape`."""
    place = {"mask": _middle_of_mask, "point": _index_of_point, "centre": _middle_of_image}[crop.around]
    return [
        AxisGrid.centred(float(centre), crop.size_mm / count / mm, count)
        for centre, mm, count in zip(place(item), item.image.spacing, shape, strict=True)
    ]


def _middle_of_image(item: Item) -> Floats:
    return (np.array(item.image.shape) - 1) / 2


def _middle_of_mask(item: Item) -> Floats:
    """Index of the centre of the mask's bounding box."""
    inside = np.empty((0, 1)) if item.mask is None else np.argwhere(item.mask.array.max(axis=0) > 0)
    if not len(inside):
        raise DataError(f"{item.name}: has no mask, or an empty one; data.crop.around: mask needs one for every image.")
    return np.asarray((inside.min(axis=0) + inside.max(axis=0)) / 2)


def _index_of_point(item: Item) -> Floats:
    point = np.asarray(item.point or [np.nan] * 3, dtype=np.float64)
    dims, affine = len(item.image.shape), item.image.affine
    if np.isnan(point[:2]).any() or (dims == 3 and np.isnan(point[2])):
        raise DataError(f"{item.name}: has no point; data.crop.around: point needs one for every image.")
    if np.isnan(point[2]):
        point = np.array([*point[:2], affine[2, 3]])
    index = (np.linalg.inv(affine) @ [*point, 1.0])[:dims]
    if (index < -0.5).any() or (index > np.array(item.image.shape) - 0.5).any():
        raise DataError(
            f"{item.name}: the lesion's point lies outside the image. Points are mm in the DICOM patient system (LPS)."
        )
    return np.asarray(index)


def _moved(affine: Floats, grids: Sequence[AxisGrid]) -> Floats:
    """The affine of the resampled image."""
    step = np.eye(4)
    for axis, grid in enumerate(grids):
        step[axis, axis], step[axis, 3] = grid.step, grid.start
    return affine @ step


def _sides(image: Placed) -> str:
    return "x".join(str(size) for size in image.shape)
