"""Trunks trained without labels: by contrast (SimCLR), and as the encoder of a denoising autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.config.augment import AugmentConfig
from pipeline.core.compute import Hardware, autocast, place
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import StoredImages, Stream
from pipeline.nets.classifiers import pooled
from pipeline.nets.layers import CONV
from pipeline.nets.sizes import doublings
from pipeline.supervised.loop import minimise
from pipeline.supervised.losses import nt_xent

VIEWS = AugmentConfig(brightness=0.25, contrast=0.5, shift=0.125, rotate_degrees=15, scale=0.2, noise=0.05, cutout=0.5)
"""Views of an image for SimCLR: stronger than a classifier's transforms, as Chen et al. found to be needed."""
_TEMPERATURE = 0.5
_PROJECTED = 64
_NOISE = 0.3
_LR, _WEIGHT_DECAY = 1e-3, 1e-4


def fit_encoder(
    kind: Literal["simclr", "autoencoder"],
    trunk: nn.Module,
    features: int,
    images: StoredImages,
    *,
    steps: int,
    batch_size: int,
    hardware: Hardware,
    seed: int,
) -> nn.Module:
    """Train `trunk` in place on images whose labels are never read; returns it in evaluation mode, on the CPU.

    Args:
        kind: `simclr`: two views of an image shall be alike (Chen et al., "A Simple Framework for Contrastive Learning
            of Visual Representations", ICML 2020; temperature 0.5). `autoencoder`: a decoder shall give back the image
            from which noise was added (Vincent et al., JMLR 2010; sigma 0.3 in units of [-1, 1], mean squared error).
        trunk: [B, C, *spatial] -> [B, features, *grid].
        batch_size: images a step, whatever their class; SimCLR sees each twice.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
    """
    stream = Stream(images, batch_size, derive_seed(seed, "order"), balanced=False)
    draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(seed, "augment")))
    channels, *size = images.shape
    with torch.random.fork_rng(devices=[hardware.device] if hardware.device == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "encoder"))
        tail = projection(features) if kind == "simclr" else Decoder(features, channels, size)
        both = place(nn.ModuleDict({"trunk": trunk, "tail": tail}), hardware).train()
        loss_of = _contrast if kind == "simclr" else _denoising
        minimise(
            lambda _: loss_of(both, stream.next().images, draws, hardware), both.parameters(),
            steps=steps, lr=_LR, weight_decay=_WEIGHT_DECAY, what=f"the {kind} encoder",
        )  # fmt: skip
    return trunk.eval().cpu()


def projection(features: int) -> nn.Module:
    """SimCLR's projection head, [B, features] -> [B, 64]; it is thrown away."""
    return nn.Sequential(
        nn.Linear(features, features), nn.BatchNorm1d(features), nn.ReLU(), nn.Linear(features, _PROJECTED)
    )


class Decoder(nn.Module):
    """[B, features, *grid] -> images [B, C, *spatial]: doublings with a 3 x 3 convolution each."""

    def __init__(self, features: int, channels: int, spatial_size: Sequence[int]) -> None:
        super().__init__()
        conv = CONV[len(spatial_size)]
        self.spatial_size = tuple(spatial_size)
        self.mode = "bilinear" if len(spatial_size) == 2 else "trilinear"
        widths = [features, *(max(8, features >> level) for level in range(1, doublings(spatial_size) + 1))]
        self.layers = nn.ModuleList([conv(before, after, 3, padding=1) for before, after in pairwise(widths)])
        self.last = conv(widths[-1], channels, 3, padding=1)

    def forward(self, grid: Tensor) -> Tensor:
        for layer in self.layers:
            grid = torch.relu(layer(self._resized(grid, [2 * side for side in grid.shape[2:]])))
        images: Tensor = self.last(self._resized(grid, self.spatial_size))
        return images

    def _resized(self, grid: Tensor, size: Sequence[int]) -> Tensor:
        return nn.functional.interpolate(grid, list(size), mode=self.mode, align_corners=False)


def _contrast(both: nn.ModuleDict, images: Tensor, draws: Draws, hardware: Hardware) -> Tensor:
    augment = Augmenter(VIEWS)
    views = torch.cat([augment(images, draws), augment(images, draws)])
    with autocast(hardware):
        projected = both["tail"](pooled(both["trunk"](views)))
    one, two = projected.float().chunk(2)
    return nt_xent(one, two, _TEMPERATURE)


def _denoising(both: nn.ModuleDict, images: Tensor, draws: Draws, hardware: Hardware) -> Tensor:
    noisy = images + _NOISE * draws.randn(images.shape)
    with autocast(hardware):
        restored = both["tail"](both["trunk"](noisy))
    return nn.functional.mse_loss(restored.float(), images)
