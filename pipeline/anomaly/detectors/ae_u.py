"""An autoencoder that says how sure it is of every voxel: residuals count less where it is unsure."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import DetectorFacts
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import Autoencoder

_LEAST_LOG_VARIANCE = -8.0


class UncertainAutoencoder(Reconstruction):
    """Map: the squared residual over the predicted variance."""

    what = "the autoencoder with uncertainty"

    def make_net(self) -> nn.Module:
        config, shape = self.setting.config, self.setting.shape
        return Autoencoder(shape, config.width, config.latent_dim, 2 * shape.channels)

    def loss(self, images: Tensor, draws: Draws) -> Tensor:
        decoded, log_variance = self._parts(images)
        return ((decoded - images).square() * torch.exp(-log_variance) + log_variance).mean()

    @torch.no_grad()
    def map(self, images: Tensor) -> Tensor:
        decoded, log_variance = self._parts(images)
        return ((decoded - images).square() * torch.exp(-log_variance)).mean(dim=1)

    def _parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded images and the log variance of each voxel."""
        decoded, log_variance = self.net(images).float().chunk(2, dim=1)
        return decoded, log_variance.clamp_min(_LEAST_LOG_VARIANCE)


DETECTOR = DetectorFacts(
    "autoencoding", "Mao et al., Abnormality Detection in Chest X-Ray Images Using Uncertainty Prediction "
    "Autoencoders, MICCAI 2020", UncertainAutoencoder, says_where=True,
)  # fmt: skip
