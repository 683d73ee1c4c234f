"""Batched random transforms on the device: one recipe for classifiers and for the discriminator.

The geometry is one random matrix an image: `grid_sample` interpolates where the policy rotates or scales, and voxels
are copied where it only mirrors and shifts. Intensities are tensor arithmetic. Everything is differentiable in the
images, so the same function serves as differentiable augmentation (Zhao et al., "Differentiable Augmentation for
Data-Efficient GAN Training", NeurIPS 2020). The random numbers come from a generator that the caller owns and saves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pipeline.config.augment import AugmentConfig
from pipeline.data.batches.draws import Draws

LOWEST = -1.0


class Augmenter:
    """Applies one policy to batches.

    Args:
        policy: strengths; a zero switches its transform off at no cost.
        probability: scalar in [0, 1] that may change between calls: each transform acts on each image with this
            probability (adaptive augmentation). None = always.
    """

    def __init__(self, policy: AugmentConfig, probability: Tensor | None = None) -> None:
        self.policy, self.probability = policy, probability

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Transform each image on its own draw.

        Args:
            images: [B, C, *spatial] in [-1, 1], 2D or 3D, float32.
            draws: on the images' device.

        Returns:
            [B, C, *spatial]; intensities may leave [-1, 1], as they do for real and fake images alike.
        """
        policy = self.policy
        images = self._moved(images, draws)
        if policy.blur:
            images = self._blurred_or_sharpened(images, draws)
        if policy.gamma:
            exponent = torch.exp(_uniform(images, -policy.gamma, policy.gamma, draws))
            images = self._sometimes(((images + 1).clamp(1e-6, 2) / 2) ** exponent * 2 - 1, images, draws)
        images = self._brightened(images, draws)
        if policy.noise:
            sigma, noise = _uniform(images, 0, policy.noise, draws), draws.randn(images.shape)
            images = torch.addcmul(images, self._sometimes(sigma, 0.0, draws), noise)
        if policy.cutout:
            hidden = self._sometimes(_hidden(images, policy.cutout, draws), False, draws)
            images = torch.where(hidden, LOWEST, images)
        return images

    def _moved(self, images: Tensor, draws: Draws) -> Tensor:
        """Mirrored, rotated, scaled and shifted in one go; nothing is interpolated that only mirrors and shifts."""
        policy, batch, dims = self.policy, images.shape[0], images.ndim - 2
        if not (policy.flip or policy.shift or policy.rotate_degrees or policy.scale):
            return images
        signs = torch.ones(batch, dims + 1, 1, device=images.device)
        for axis in policy.flip:
            sign = torch.where(_draw((batch, 1), 0, 1, draws) < 0.5, -1.0, 1.0)
            signs[:, :dims][:, axis] *= self._sometimes(sign, 1.0, draws)
        matrices = torch.eye(dims + 1, device=images.device).expand(batch, -1, -1)
        if policy.shift or policy.rotate_degrees or policy.scale:
            matrices = self._sometimes(affine_matrices(images, policy, draws), matrices, draws)
        if policy.rotate_degrees or policy.scale:
            return warped(images, signs * matrices, _mirrorings(policy, images.shape[2:]))
        return copied(images, signs * matrices)

    def _blurred_or_sharpened(self, images: Tensor, draws: Draws) -> Tensor:
        """What a blur takes away goes from the image, or is added to it once more."""
        policy = self.policy
        taken = images - smoothed(images, _draw((len(images),), 0, policy.blur, draws), policy.blur)
        factor = torch.full((len(images), *[1] * (images.ndim - 1)), -1.0, device=images.device)
        if policy.sharpen:
            chosen = _uniform(images, 0, 1, draws) < 0.5
            factor = torch.where(chosen, _uniform(images, 0, policy.sharpen, draws), factor)
        return torch.addcmul(images, self._sometimes(factor, 0.0, draws), taken)

    def _brightened(self, images: Tensor, draws: Draws) -> Tensor:
        """Each image times a factor about its own mean, then brighter or darker: one pass over the voxels."""
        policy = self.policy
        if not policy.contrast and not policy.brightness:
            return images
        factor, change = torch.ones((), device=images.device), torch.zeros((), device=images.device)
        if policy.contrast:
            factor = self._sometimes(_uniform(images, 1 - policy.contrast, 1 + policy.contrast, draws), 1.0, draws)
            change = images.mean(dim=tuple(range(1, images.ndim)), keepdim=True) * (1 - factor)
        if policy.brightness:
            brighter = _uniform(images, -policy.brightness, policy.brightness, draws)
            change = change + self._sometimes(brighter, 0.0, draws)
        return torch.addcmul(change, images, factor)

    def _sometimes(self, changed: Tensor, unchanged: Tensor | float, draws: Draws) -> Tensor:
        if self.probability is None:
            return changed
        chosen = draws.rand((len(changed), *[1] * (changed.ndim - 1))) < self.probability
        return torch.where(chosen, changed, unchanged)


def warped(images: Tensor, matrices: Tensor, mirrorings: int = 1) -> Tensor:
    """Images read, linearly interpolated, where `matrices` send their voxels; outside they go on as in a mirror.

    `grid_sample` can mirror too, but in 3D on a CPU it then takes twice as long.

    Args:
        images: [B, C, *spatial].
        matrices: [B, d+1, d+1] as `affine_matrices` gives them.
        mirrorings: how often a place is mirrored at the borders; enough up to 2 `mirrorings` + 1 half sides from the
            centre.
    """
    dims = images.ndim - 2
    theta = normalised(matrices, images)[:, :dims]
    theta = torch.cat([theta[:, :, :dims].flip(1, 2), theta[:, :, dims:].flip(1)], dim=2)  # the last axis is the first
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    for _ in range(mirrorings):
        grid = grid.clamp(-1, 1).mul_(2).sub_(grid)
    return grid_sample(images.contiguous(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def smoothed(images: Tensor, sigma: Tensor, most: float) -> Tensor:
    """Each image under a Gaussian of its own, cut off at 4 x `most` voxels, with mirrored borders, as SciPy's
    `gaussian_filter` gives it; for each axis a product with a matrix.

    Args:
        images: [B, C, *spatial].
        sigma: [B] voxels, at most `most`.
    """
    reach = torch.arange(-math.ceil(4 * most), math.ceil(4 * most) + 1, device=images.device)
    weights = torch.softmax(-0.5 * (reach / sigma[:, None].clamp(min=1e-3)) ** 2, dim=1)
    for axis, side in enumerate(images.shape[2:], start=2):
        position = (torch.arange(side, device=images.device)[:, None] + reach) % (2 * side)
        position = torch.minimum(position, 2 * side - 1 - position)
        spread = torch.zeros(len(images), side, side, device=images.device)
        spread.scatter_add_(2, position.expand(len(images), -1, -1), weights[:, None].expand(-1, side, -1))
        rows = images.movedim(axis, -1)
        images = (rows.flatten(1, -2) @ spread.mT).view(rows.shape).movedim(-1, axis)
    return images.contiguous()


def _mirrorings(policy: AugmentConfig, sides: Sequence[int]) -> int:
    """How often the farthest corner may have to be mirrored."""
    reach = len(sides) ** 0.5 * max(sides) / min(sides) / (1 - policy.scale) + 2 * policy.shift  # in half sides
    return math.ceil((reach - 1) / 2)


def copied(images: Tensor, matrices: Tensor) -> Tensor:
    """What `warped` gives where matrices only mirror and shift by whole voxels: copies, reflected at the border.

    Args:
        images: [B, C, *spatial].
        matrices: [B, d+1, d+1] as `affine_matrices` gives them, with 1 or -1 on the diagonal.
    """
    batch, channels, *sides = images.shape
    source = torch.zeros((batch, 1), dtype=torch.int64, device=images.device)
    for axis, side in enumerate(sides):
        sign, shift = (matrices[:, axis, column, None].round().long() for column in (axis, len(sides)))
        position = torch.arange(side, device=images.device)
        position = (torch.where(sign > 0, position, side - 1 - position) + shift) % (2 * side)
        position = torch.minimum(position, 2 * side - 1 - position)
        source = (source[:, :, None] * side + position[:, None]).flatten(1)
    source = source[:, None].expand(-1, channels, -1)
    return images.flatten(2).gather(2, source).view(images.shape)


def affine_matrices(images: Tensor, policy: AugmentConfig, draws: Draws) -> Tensor:
    """Random matrices [B, d+1, d+1] from output to input, in voxels about the image's centre, axes in array order.

    Shifts are whole voxels, so that a policy without rotation and scale copies voxels and blurs nothing.
    """
    batch, dims, device = images.shape[0], images.ndim - 2, images.device
    theta = torch.eye(dims + 1, device=device).repeat(batch, 1, 1)
    linear = torch.eye(dims, device=device).expand(batch, dims, dims)
    if policy.rotate_degrees:
        limit = math.radians(policy.rotate_degrees)
        for first, second in [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]:
            linear = linear @ _rotation(_draw((batch,), -limit, limit, draws), first, second, dims)
    if policy.scale:
        linear = linear / _draw((batch, 1, 1), 1 - policy.scale, 1 + policy.scale, draws)
    theta[:, :dims, :dims] = linear
    if policy.shift:
        sides = torch.tensor(images.shape[2:], device=device)
        theta[:, :dims, dims] = (_draw((batch, dims), -policy.shift, policy.shift, draws) * sides).round()
    return theta


def normalised(matrices: Tensor, images: Tensor) -> Tensor:
    """Matrices in voxels about the centre, as matrices in the [-1, 1] of `affine_grid` (sides are the borders)."""
    half = torch.tensor([*images.shape[2:], 2], device=images.device) / 2
    return matrices * half / half[:, None]


def _rotation(angle: Tensor, first: int, second: int, dims: int) -> Tensor:
    matrix = torch.eye(dims, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, first, first] = matrix[:, second, second] = angle.cos()
    matrix[:, first, second] = -angle.sin()
    matrix[:, second, first] = angle.sin()
    return matrix


def _draw(shape: tuple[int, ...], low: float, high: float, draws: Draws) -> Tensor:
    return draws.rand(shape) * (high - low) + low


def _uniform(images: Tensor, low: float, high: float, draws: Draws) -> Tensor:
    """One number an image, shaped to broadcast over it."""
    return _draw((images.shape[0], *([1] * (images.ndim - 1))), low, high, draws)


def _hidden(images: Tensor, fraction: float, draws: Draws) -> Tensor:
    """A random square (cube) of side `fraction` in each image, [B, 1, *spatial]; it may reach over the border."""
    hidden = torch.ones((images.shape[0], 1, *([1] * (images.ndim - 2))), dtype=torch.bool, device=images.device)
    for axis, side in enumerate(images.shape[2:]):
        length = max(1, round(side * fraction))
        centre = draws.randint(side + 1 - length % 2, (images.shape[0],))
        position = torch.arange(side, device=images.device)
        within = (position - centre[:, None] + length // 2 >= 0) & (position - centre[:, None] + length // 2 < length)
        hidden = hidden & within.view(images.shape[0], 1, *([1] * axis), side, *([1] * (images.ndim - 3 - axis)))
    return hidden
