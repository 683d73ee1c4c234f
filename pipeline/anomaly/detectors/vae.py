"""A variational autoencoder: residual and distance of the code from its prior, or what gradient descent restores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import DetectorFacts
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import Autoencoder

_NOISE = 0.1
"""Standard deviation of a voxel's value about the decoder's, in units of [-1, 1]: it weighs the residual against KL."""


class VariationalAutoencoder(Reconstruction):
    """Score: minus the evidence lower bound a voxel, with the mean of the code; its map is the residual's part."""

    what = "the variational autoencoder"

    def make_net(self) -> nn.Module:
        config = self.setting.config
        return Autoencoder(self.setting.shape, config.width, config.latent_dim, spread=True)

    def loss(self, images: Tensor, draws: Draws) -> Tensor:
        mean, log_variance = self.net.encoder(images).float().chunk(2, dim=1)  # type: ignore[operator]
        code = mean + torch.exp(0.5 * log_variance) * draws.randn(mean.shape)
        decoded = self.net.decoder(code).float()  # type: ignore[operator]
        return self._bound(images, decoded, mean, log_variance).mean()

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        mean, log_variance = self.net.encoder(images).chunk(2, dim=1)  # type: ignore[operator]
        return self._bound(images, self.net.decoder(mean), mean, log_variance)  # type: ignore[operator]

    @staticmethod
    def _bound(images: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Minus the evidence lower bound a voxel without its constants, [B] (Kingma & Welling, ICLR 2014)."""
        residual = (decoded - images).square().flatten(1).sum(dim=1) / (2 * _NOISE**2)
        return (residual + divergence(mean, log_variance)) / images[0].numel()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of normal distributions [B, numbers] from the standard one, summed over the numbers: [B]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


DETECTOR = DetectorFacts(
    "autoencoding", "Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014; Zimmerer et al., MIDL 2019",
    VariationalAutoencoder, says_where=True,
)  # fmt: skip
