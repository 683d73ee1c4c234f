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

from pipeline.config.experiment import AugmentConfig

LOWEST = -1.0


class Augmenter:
    """Applies one policy to batches.

    Args:
        policy: strengths; a zero switches its transform off at no cost.
    """

    def __init__(self, policy: AugmentConfig) -> None:
        self.policy = policy
        self._warp = AffineTransform(normalized=True, mode="bilinear", padding_mode="reflection", align_corners=False)

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Transform each image on its own draw.

        Args:
            images: [B, C, *spatial] in [-1, 1], 2D or 3D, float32.
            generator: on the images' device.

        Returns:
            [B, C, *spatial]; intensities may leave [-1, 1], as they do for real and fake images alike.
        """
        policy = self.policy
        images = _flip(images, policy.flip, generator)
        if policy.shift or policy.rotate_degrees or policy.scale:
            matrices = normalised(affine_matrices(images, policy, generator), images)
            images = self._warp(images, matrices)
        if policy.gamma:
            exponent = torch.exp(_uniform(images, -policy.gamma, policy.gamma, generator))
            images = ((images + 1).clamp(1e-6, 2) / 2) ** exponent * 2 - 1
        if policy.contrast:
            mean = images.mean(dim=tuple(range(1, images.ndim)), keepdim=True)
            images = (images - mean) * _uniform(images, 1 - policy.contrast, 1 + policy.contrast, generator) + mean
        if policy.brightness:
            images = images + _uniform(images, -policy.brightness, policy.brightness, generator)
        if policy.noise:
            sigma = _uniform(images, 0, policy.noise, generator)
            noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
            images = images + sigma * noise
        return _cutout(images, policy.cutout, generator) if policy.cutout else images


def affine_matrices(images: torch.Tensor, policy: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    """Random matrices [B, d+1, d+1] from output to input, in voxels about the image's centre, axes in array order.

    Shifts are whole voxels, so that a policy without rotation and scale copies voxels and blurs nothing.
    """
    batch, dims, device = images.shape[0], images.ndim - 2, images.device
    theta = torch.eye(dims + 1, device=device).repeat(batch, 1, 1)
    linear = torch.eye(dims, device=device).expand(batch, dims, dims)
    if policy.rotate_degrees:
        limit = math.radians(policy.rotate_degrees)
        for first, second in [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]:
            linear = linear @ _rotation(_draw((batch,), -limit, limit, generator), first, second, dims)
    if policy.scale:
        linear = linear / _draw((batch, 1, 1), 1 - policy.scale, 1 + policy.scale, generator)
    theta[:, :dims, :dims] = linear
    if policy.shift:
        sides = torch.tensor(images.shape[2:], device=device)
        theta[:, :dims, dims] = (_draw((batch, dims), -policy.shift, policy.shift, generator) * sides).round()
    return theta


def normalised(matrices: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Matrices in voxels about the centre, as matrices in the [-1, 1] of `affine_grid` (sides are the borders)."""
    half = torch.tensor([*images.shape[2:], 2], device=images.device) / 2
    return matrices * half / half[:, None]


def _rotation(angle: torch.Tensor, first: int, second: int, dims: int) -> torch.Tensor:
    matrix = torch.eye(dims, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, first, first] = matrix[:, second, second] = angle.cos()
    matrix[:, first, second] = -angle.sin()
    matrix[:, second, first] = angle.sin()
    return matrix


def _draw(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def _uniform(images: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """One number an image, shaped to broadcast over it."""
    return _draw((images.shape[0], *([1] * (images.ndim - 1))), low, high, generator)


def _flip(images: torch.Tensor, axes: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    for axis in axes:
        images = torch.where(_uniform(images, 0, 1, generator) < 0.5, images.flip(axis + 2), images)
    return images


def _cutout(images: torch.Tensor, fraction: float, generator: torch.Generator) -> torch.Tensor:
    """Set a square (cube) of side `fraction` to the lowest value; it may reach over the border."""
    inside = torch.ones((images.shape[0], 1, *([1] * (images.ndim - 2))), dtype=torch.bool, device=images.device)
    for axis, side in enumerate(images.shape[2:]):
        length = max(1, round(side * fraction))
        centre = torch.randint(0, side + 1 - length % 2, (images.shape[0],), generator=generator, device=images.device)
        position = torch.arange(side, device=images.device)
        within = (position - centre[:, None] + length // 2 >= 0) & (position - centre[:, None] + length // 2 < length)
        inside = inside & within.view(images.shape[0], 1, *([1] * axis), side, *([1] * (images.ndim - 3 - axis)))
    return torch.where(inside, torch.full_like(images, LOWEST), images)
