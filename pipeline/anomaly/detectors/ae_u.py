"""An autoencoder that says how sure it is of every voxel: residuals count less where it is unsure."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import DetectorFacts, Normals
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import Autoencoder

_LEAST_LOG_VARIANCE = -8.0


class UncertainAutoencoder(Reconstruction):
    """Map: the squared residual over the predicted variance, which is held at the highest of any training image.

    What was never shown has a code that was never shown, of which the decoder makes whatever it will, often a large
    variance everywhere that would explain the residual away. So a voxel's log variance counts up to `ceiling`
    [C, *spatial] and no further; in the paper nothing holds it.
    """

    ceiling: Tensor
    what = "the autoencoder with uncertainty"

    def make_net(self) -> nn.Module:
        config, shape = self.setting.config, self.setting.shape
        return Autoencoder(shape, config.width, config.latent_dim, 2 * shape.channels)

    def loss(self, images: Tensor, draws: Draws) -> Tensor:
        decoded, log_variance = self._parts(images)
        return ((decoded - images).square() * torch.exp(-log_variance) + log_variance).mean()

    def fit(self, normals: Normals) -> dict[str, Any]:
        figures = super().fit(normals)
        with torch.no_grad():
            highest = [self._parts(block)[1].amax(dim=0) for block in normals.train.blocks()]
        self.keep(ceiling=torch.stack(highest).amax(dim=0))
        return figures

    @torch.no_grad()
    def map(self, images: Tensor) -> Tensor:
        decoded, log_variance = self._parts(images)
        return ((decoded - images).square() * torch.exp(-log_variance.minimum(self.ceiling))).mean(dim=1)

    def _parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded images and the log variance of each voxel."""
        decoded, log_variance = self.net(images).float().chunk(2, dim=1)
        return decoded, log_variance.clamp_min(_LEAST_LOG_VARIANCE)


DETECTOR = DetectorFacts(
    "autoencoding", "Mao et al., Abnormality Detection in Chest X-Ray Images Using Uncertainty Prediction "
    "Autoencoders, MICCAI 2020", UncertainAutoencoder, says_where=True, trains=True,
    note="a voxel's variance counts up to the highest of any training image",
)  # fmt: skip
