"""A variational autoencoder: the residual of what it decodes, and how far the code lies from its prior."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import DetectorFacts
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import Autoencoder
from pipeline.supervised.unlabelled import evidence_loss, minus_evidence


class VariationalAutoencoder(Reconstruction):
    """Score: minus the evidence lower bound a voxel, with the mean of the code; its map is the residual's part."""

    what = "the variational autoencoder"

    def make_net(self) -> nn.Module:
        config = self.setting.config
        return Autoencoder(self.setting.shape, config.width, config.latent_dim, spread=True)

    def loss(self, images: Tensor, draws: Draws) -> Tensor:
        return evidence_loss(self.net, images, draws)  # type: ignore[arg-type]

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        mean, log_variance = self.net.encoder(images).chunk(2, dim=1)  # type: ignore[operator]
        return minus_evidence(images, self.net.decoder(mean), mean, log_variance)  # type: ignore[operator]


DETECTOR = DetectorFacts(
    "autoencoding", "Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014; Zimmerer et al., MIDL 2019",
    VariationalAutoencoder, says_where=True, trains=True,
)  # fmt: skip
