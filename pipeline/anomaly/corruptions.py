"""Spoilt copies of normal images: what a lesion might look like to somebody who never saw one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.anomaly.maps import spread_over
from pipeline.data.batches.draws import Draws

_SIDES = (0.1, 0.35)
"""Of a patch or blob, as shares of the image's sides."""
_SCAR = (0.02, 0.08)
"""Thickness of a scar, as a share of the shortest side; it is as long as a patch."""
_BLOB_CONTRAST = (0.2, 0.6)
"""Of a blob, in units of [-1, 1]."""


def cut_pasted(images: Tensor, draws: Draws) -> Tensor:
    """Each image [B, C, *spatial] with a box of another place of its own pasted in (CutPaste; Li et al., CVPR 2021)."""
    size = images.shape[2:]
    spoilt = images.clone()
    sides = _between(draws.rand((len(images), len(size))), _SIDES)
    starts = draws.rand((len(images), 2, len(size)))
    for one, side, (source, target) in zip(spoilt, sides.tolist(), starts.tolist(), strict=True):
        lengths = [max(1, round(share * extent)) for share, extent in zip(side, size, strict=True)]
        box, place = (_box(start, lengths, size) for start in (source, target))
        one[(slice(None), *place)] = one[(slice(None), *box)].clone()
    return spoilt


def scarred(images: Tensor, draws: Draws) -> Tensor:
    """Each image with a thin oblique strip of another place of its own pasted in (CutPaste-Scar, as above).

    A strip is straight and round: all voxels that are near to a line of random direction. What it holds is moved by
    whole voxels and not turned.
    """
    size, number = images.shape[2:], len(images)
    shortest = min(size)
    length = shortest * _between(draws.rand((number,)), _SIDES)
    thickness = (shortest * _between(draws.rand((number,)), _SCAR)).clamp_min(2.0)
    direction = torch.nn.functional.normalize(draws.randn((number, len(size))))
    sides = torch.tensor(size, device=direction.device)
    centres = draws.rand((number, 2, len(size))) * (sides - 1)
    voxels = torch.stack(torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij"), dim=-1).to(centres)
    spoilt = images.clone()
    for place, (source, target) in enumerate(centres):
        apart = voxels - target
        along = apart @ direction[place]
        across = apart.square().sum(dim=-1) - along.square()
        inside = (along.abs() <= length[place] / 2) & (across <= (thickness[place] / 2) ** 2)
        shifts = [round(step) for step in (target - source).tolist()]
        moved = images[place].roll(shifts, dims=list(range(1, len(size) + 1)))
        spoilt[place] = torch.where(inside, moved, images[place])
    return spoilt


def with_blobs(images: Tensor, draws: Draws) -> Tensor:
    """Each image with a smooth bright or dark blob of noise at a random place, values kept in [-1, 1]."""
    size, number = images.shape[2:], len(images)
    axes = torch.meshgrid(*(torch.linspace(0, 1, side, device=images.device) for side in size), indexing="ij")
    centre = draws.rand((number, len(size))).to(images.device)
    radius = _between(draws.rand((number, 1)).to(images.device), _SIDES) / 2
    squares = sum(
        ((axis[None] - centre[:, place].view(-1, *[1] * len(size))) / radius.view(-1, *[1] * len(size))) ** 2
        for place, axis in enumerate(axes)
    )
    assert isinstance(squares, Tensor)
    texture = spread_over(draws.randn((number, *[max(2, side // 4) for side in size])).to(images.device), size)
    contrast = _between(draws.rand((number, 1)).to(images.device), _BLOB_CONTRAST)
    sign = torch.where(draws.rand((number, 1)).to(images.device) < 0.5, -1.0, 1.0)
    change = (contrast * sign).view(-1, *[1] * len(size)) * torch.exp(-squares) * (1 + 0.5 * texture)
    return (images + change[:, None]).clamp(-1, 1)


def _between(uniform: Tensor, bounds: tuple[float, float]) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform


def _box(start: Sequence[float], lengths: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """A box of these lengths that lies inside, its corner at a share of the room there is."""
    corners = [int(share * (extent - length + 1)) for share, length, extent in zip(start, lengths, size, strict=True)]
    return tuple(slice(corner, corner + length) for corner, length in zip(corners, lengths, strict=True))
