"""A denoising autoencoder told to take away coarse noise: lesions are taken away as noise is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import DetectorFacts
from pipeline.anomaly.maps import spread_over
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import DenoisingPyramid

_COARSE = 8
"""Voxels of the image to one of the noise."""
_NOISE = 0.2
"""Standard deviation of the noise, in units of [-1, 1]."""


class DenoisingAutoencoder(Reconstruction):
    """A small U-net without a narrow middle, trained to give back normal images from coarsely noisy ones."""

    what = "the denoising autoencoder"

    def make_net(self) -> nn.Module:
        return DenoisingPyramid(self.setting.shape, self.setting.config.width)

    def loss(self, images: Tensor, draws: Draws) -> Tensor:
        restored = self.net(images + coarse_noise(images.shape, draws).to(images))
        return nn.functional.mse_loss(restored.float(), images)


def coarse_noise(shape: torch.Size, draws: Draws) -> Tensor:
    """Noise [B, C, *spatial] of low resolution, interpolated and rolled by a random shift of the whole batch."""
    batch, channels, *size = shape
    noise = draws.randn((batch * channels, *[max(2, side // _COARSE) for side in size]))
    shifts = [int(draws.randint(side, (1,))) for side in size]
    spread = spread_over(noise, size).roll(shifts, dims=list(range(1, len(size) + 1)))
    return _NOISE * spread.view(shape)


DETECTOR = DetectorFacts(
    "autoencoding", "Kascenas, Pugeault & O'Neil, Denoising Autoencoders for Unsupervised Anomaly Detection in Brain "
    "MRI, MIDL 2022", DenoisingAutoencoder, says_where=True,
)  # fmt: skip
