"""Batched random transforms on the device: one recipe for classifiers and for the discriminator.

The geometry is MONAI's batched `AffineTransform`, fed with one random matrix an image; intensities are tensor
arithmetic. Everything is differentiable in the images, so the same function serves as differentiable augmentation
(Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020). The random numbers come
from a generator that the caller owns and saves.
"""

from __future__ import annotations

import math

import torch
from monai.networks.layers import AffineTransform
from torch import Tensor

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
        self._warp = AffineTransform(normalized=True, mode="bilinear", padding_mode="reflection", align_corners=False)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Transform each image on its own draw.

        Args:
            images: [B, C, *spatial] in [-1, 1], 2D or 3D, float32.
            draws: on the images' device.

        Returns:
            [B, C, *spatial]; intensities may leave [-1, 1], as they do for real and fake images alike.
        """
        policy = self.policy
        for axis in policy.flip:
            mirrored = torch.where(_uniform(images, 0, 1, draws) < 0.5, images.flip(axis + 2), images)
            images = self._sometimes(mirrored, images, draws)
        if policy.shift or policy.rotate_degrees or policy.scale:
            matrices = affine_matrices(images, policy, draws)
            still = torch.eye(images.ndim - 1, device=images.device).expand_as(matrices)
            images = self._warp(images, normalised(self._sometimes(matrices, still, draws), images))
        if policy.gamma:
            exponent = torch.exp(_uniform(images, -policy.gamma, policy.gamma, draws))
            images = self._sometimes(((images + 1).clamp(1e-6, 2) / 2) ** exponent * 2 - 1, images, draws)
        if policy.contrast:
            mean = images.mean(dim=tuple(range(1, images.ndim)), keepdim=True)
            factor = _uniform(images, 1 - policy.contrast, 1 + policy.contrast, draws)
            images = self._sometimes((images - mean) * factor + mean, images, draws)
        if policy.brightness:
            change = _uniform(images, -policy.brightness, policy.brightness, draws)
            images = self._sometimes(images + change, images, draws)
        if policy.noise:
            noise = _uniform(images, 0, policy.noise, draws) * draws.randn(images.shape)
            images = self._sometimes(images + noise, images, draws)
        return self._sometimes(_cutout(images, policy.cutout, draws), images, draws) if policy.cutout else images

    def _sometimes(self, changed: Tensor, unchanged: Tensor, draws: Draws) -> Tensor:
        if self.probability is None:
            return changed
        chosen = draws.rand((len(changed), *[1] * (changed.ndim - 1))) < self.probability
        return torch.where(chosen, changed, unchanged)


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


def _cutout(images: Tensor, fraction: float, draws: Draws) -> Tensor:
    """Set a square (cube) of side `fraction` to the lowest value; it may reach over the border."""
    inside = torch.ones((images.shape[0], 1, *([1] * (images.ndim - 2))), dtype=torch.bool, device=images.device)
    for axis, side in enumerate(images.shape[2:]):
        length = max(1, round(side * fraction))
        centre = draws.randint(side + 1 - length % 2, (images.shape[0],))
        position = torch.arange(side, device=images.device)
        within = (position - centre[:, None] + length // 2 >= 0) & (position - centre[:, None] + length // 2 < length)
        inside = inside & within.view(images.shape[0], 1, *([1] * axis), side, *([1] * (images.ndim - 3 - axis)))
    return torch.where(inside, torch.full_like(images, LOWEST), images)
