"""The squared residual of an autoencoder with a narrow middle."""

from __future__ import annotations

from torch import nn

from pipeline.anomaly.detector import DetectorFacts
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.nets.autoencoders import Autoencoder


class PlainAutoencoder(Reconstruction):
    """`anomaly.latent_dim` numbers in the middle: 4 to 16 serve best (Cai et al., arXiv:2404.04518)."""

    def make_net(self) -> nn.Module:
        config = self.setting.config
        return Autoencoder(self.setting.shape, config.width, config.latent_dim)


DETECTOR = DetectorFacts(
    "autoencoding", "Baur et al., Autoencoders for Unsupervised Anomaly Segmentation in Brain MR Images, MedIA 2021",
    PlainAutoencoder, says_where=True, trains=True,
)  # fmt: skip
