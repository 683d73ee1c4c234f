"""A denoising autoencoder told to take away coarse noise: lesions are taken away as noise is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import DetectorFacts
from pipeline.anomaly.maps import spread_over
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import DenoisingPyramid

_CELLS = 16
"""Values of the noise along each axis, whatever the image's size (fewer where a cell would be below two voxels)."""
_NOISE = 0.4
"""Standard deviation of these values, in units of [-1, 1]: the paper's 0.2 of the range from 0 to 1."""


class DenoisingAutoencoder(Reconstruction):
    """A small U-net without a narrow middle, trained to give back normal images from coarsely noisy ones.

    Unlike the paper's, noise falls on the background too (what is background is not known here), and the residual is
    squared and not filtered by a median.
    """

    what = "the denoising autoencoder"

    def make_net(self) -> nn.Module:
        return DenoisingPyramid(self.setting.shape, max(2, self.setting.config.width // 2))

    def loss(self, images: Tensor, draws: Draws) -> Tensor:
        restored = self.net(images + coarse_noise(images.shape, draws).to(images))
        return nn.functional.mse_loss(restored.float(), images)


def coarse_noise(shape: torch.Size, draws: Draws) -> Tensor:
    """Noise [B, C, *spatial] of low resolution, interpolated and rolled by a random shift of the whole batch."""
    batch, channels, *size = shape
    noise = draws.randn((batch * channels, *[min(_CELLS, max(2, side // 2)) for side in size]))
    shifts = [int(draws.randint(side, (1,))) for side in size]
    spread = spread_over(noise, size).roll(shifts, dims=list(range(1, len(size) + 1)))
    return _NOISE * spread.view(shape)


DETECTOR = DetectorFacts(
    "autoencoding", "Kascenas, Pugeault & O'Neil, Denoising Autoencoders for Unsupervised Anomaly Detection in Brain "
    "MRI, MIDL 2022", DenoisingAutoencoder, says_where=True, trains=True,
)  # fmt: skip
