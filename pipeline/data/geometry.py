"""The rule by which images of any size become arrays of one size, as a chain of MONAI dictionary transforms.

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

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientationd

from pipeline.config.data import CropConfig
from pipeline.core.errors import DataError
from pipeline.data.resampling import AxisGrid, Floats, resample, resample_nearest

IMAGE, MASK, POINT, NAME = "image", "mask", "point", "name"
KEYS = (IMAGE, MASK)
ENLARGED_FROM = 0.75
_RAS = (("L", "R"), ("P", "A"), ("I", "S"))
Item = dict[Hashable, Any]


def geometry(
    shape: tuple[int, ...], *, spacing: tuple[float, ...] | None, crop: CropConfig | None, fit: str
) -> Callable[[Item], Item]:
    """The transform of one item: `image` and perhaps `mask`, MetaTensors [C, *spatial] with index-to-RAS-mm affines.

    A 2D image's affine takes the index (row, col, 0). `point` is a place in RAS mm, NaN where unknown (2D: the slice's
    own third coordinate is taken); `name` is the file, for messages. `image` comes back as [C, *shape] with its affine.

    Raises (when called):
        DataError: the mask is empty or lies on another grid, or the point is outside the image.
    """
    steps: list[MapTransform] = [SameGridd(KEYS, allow_missing_keys=True)]
    if len(shape) == 3:
        steps.insert(0, Orientationd(KEYS, axcodes="RAS", labels=_RAS, allow_missing_keys=True))
    if spacing is not None:
        steps.append(Spacedd(KEYS, spacing))
    steps.append(Fittedd(KEYS, shape, fit) if crop is None else CroppedAroundd(KEYS, shape, crop))

    def apply(item: Item) -> Item:  # MONAI's Compose would turn our errors into its own, and log what it was given
        for step in steps:
            item = step(item)
        return item

    return apply


class SameGridd(MapTransform):
    """Refuse a mask that is not on the image's grid (shape; in 3D also the place of its corners, to half a voxel)."""

    def __call__(self, data: Item) -> Item:
        if MASK in data:
            image, mask = data[IMAGE], data[MASK]
            same = image.shape[1:] == mask.shape[1:]
            if same and image.ndim == 4:
                corners = np.array([[0, 0, 0, 1], [*(size - 1 for size in image.shape[1:]), 1]]).T
                apart = (_affine(image) - _affine(mask)) @ corners
                same = bool(np.abs(apart).max() <= 0.5 * min(_spacing(image)))
            if not same:
                raise DataError(
                    f"{data[NAME]}: the mask does not lie on the image's grid ({_sides(mask)}, {_sides(image)}). "
                    "Resample the mask to the image."
                )
        return dict(data)


class _Gridded(MapTransform):
    """Resample image and mask onto the grids that `grids` gives for an item."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def grids(self, data: Item) -> list[AxisGrid]:
        raise NotImplementedError

    def __call__(self, data: Item) -> Item:
        grids = self.grids(data)
        out = dict(data)
        for key in self.key_iterator(out):
            method = resample_nearest if key == MASK else resample
            array = method(np.asarray(data[key]), grids)
            out[key] = MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(_moved(_affine(data[key]), grids)))
        return out


class Spacedd(_Gridded):
    """The whole image at `spacing` mm a voxel."""

    def __init__(self, keys: Sequence[str], spacing: tuple[float, ...]) -> None:
        super().__init__(keys)
        self._spacing = spacing

    def grids(self, data: Item) -> list[AxisGrid]:
        grids = []
        for size, mm, wanted in zip(data[IMAGE].shape[1:], _spacing(data[IMAGE]), self._spacing, strict=True):
            count = max(1, round(size * mm / wanted))
            grids.append(AxisGrid.centred((size - 1) / 2, wanted / mm, count))
        return grids


class Fittedd(_Gridded):
    """The whole image as `shape`, by `fit`: pad or stretch."""

    def __init__(self, keys: Sequence[str], shape: tuple[int, ...], fit: str) -> None:
        super().__init__(keys)
        self._shape, self._fit = shape, fit

    def grids(self, data: Item) -> list[AxisGrid]:
        sizes, spacing = np.array(data[IMAGE].shape[1:]), np.array(_spacing(data[IMAGE]))
        shape = np.array(self._shape)
        if self._fit == "stretch":
            return [AxisGrid.whole(int(size), int(count)) for size, count in zip(sizes, shape, strict=True)]
        filled = float((sizes / shape).max())
        if np.allclose(spacing, spacing[0], rtol=1e-3) and ENLARGED_FROM < filled <= 1:
            starts = -((shape - sizes) // 2)
            return [AxisGrid(float(start), 1.0, int(count)) for start, count in zip(starts, shape, strict=True)]
        voxel = float((sizes * spacing / shape).max())
        return [
            AxisGrid.centred((int(size) - 1) / 2, voxel / float(mm), int(count))
            for size, mm, count in zip(sizes, spacing, shape, strict=True)
        ]


class CroppedAroundd(_Gridded):
    """A cube (square) of `crop.size_mm` around the lesion or the centre, as `shape`."""

    def __init__(self, keys: Sequence[str], shape: tuple[int, ...], crop: CropConfig) -> None:
        super().__init__(keys)
        self._shape, self._crop = shape, crop

    def grids(self, data: Item) -> list[AxisGrid]:
        place = {"mask": _middle_of_mask, "point": _index_of_point, "centre": _middle_of_image}[self._crop.around]
        return [
            AxisGrid.centred(float(centre), self._crop.size_mm / count / mm, count)
            for centre, mm, count in zip(place(data), _spacing(data[IMAGE]), self._shape, strict=True)
        ]


def _middle_of_image(data: Item) -> Floats:
    return (np.array(data[IMAGE].shape[1:]) - 1) / 2


def _middle_of_mask(data: Item) -> Floats:
    """Index of the centre of the mask's bounding box."""
    inside = np.argwhere(np.asarray(data[MASK]).max(axis=0) > 0) if MASK in data else np.empty((0, 1))
    if not len(inside):
        raise DataError(
            f"{data[NAME]}: has no mask, or an empty one; data.crop.around: mask needs one for every image."
        )
    return np.asarray((inside.min(axis=0) + inside.max(axis=0)) / 2)


def _index_of_point(data: Item) -> Floats:
    image, point = data[IMAGE], np.asarray(data.get(POINT, [np.nan] * 3), dtype=np.float64)
    dims, affine = image.ndim - 1, _affine(image)
    if np.isnan(point[:2]).any() or (dims == 3 and np.isnan(point[2])):
        raise DataError(f"{data[NAME]}: has no point; data.crop.around: point needs one for every image.")
    if np.isnan(point[2]):
        point = np.array([*point[:2], affine[2, 3]])
    index = (np.linalg.inv(affine) @ [*point, 1.0])[:dims]
    if (index < -0.5).any() or (index > np.array(image.shape[1:]) - 0.5).any():
        raise DataError(
            f"{data[NAME]}: the lesion's point lies outside the image. Points are mm in the DICOM patient system (LPS)."
        )
    return np.asarray(index)


def _affine(image: MetaTensor) -> Floats:
    return np.asarray(image.affine, dtype=np.float64)


def _spacing(image: MetaTensor) -> tuple[float, ...]:
    return tuple(np.linalg.norm(_affine(image)[:3, : image.ndim - 1], axis=0).tolist())


def _moved(affine: Floats, grids: Sequence[AxisGrid]) -> Floats:
    """The affine of the resampled image."""
    step = np.eye(4)
    for axis, grid in enumerate(grids):
        step[axis, axis], step[axis, 3] = grid.step, grid.start
    return affine @ step


def _sides(image: MetaTensor) -> str:
    return "x".join(str(size) for size in image.shape[1:])
