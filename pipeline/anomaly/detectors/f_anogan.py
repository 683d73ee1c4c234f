"""f-AnoGAN: an encoder finds the latent code from which the GAN of normal images makes the image again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.adversarial.inversion import residuals
from pipeline.anomaly.detector import DetectorFacts, Normals, Setting
from pipeline.anomaly.discriminator import OnGan
from pipeline.anomaly.training import built, train_on
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import ImageEncoder


class FastAnoGan(OnGan):
    """The residual between an image and what the generator makes of its code, in pixels and in the last features of
    the discriminator.

    The encoder is trained on both ("izi_f"), the GAN is left as it is. Of several normal classes the one that comes
    nearest counts. The map is the squared residual in pixels.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        width, numbers = setting.config.width, self.generator.latent_dim
        self.encoder = built(setting, lambda: ImageEncoder(setting.shape, width, numbers))

    def fit(self, normals: Normals) -> dict[str, Any]:
        train_on(normals.train, self.encoder, self._loss, self.setting, "the encoder of f-anogan")
        return {"parameters": sum(weight.numel() for weight in self.encoder.parameters())}

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        return self._residuals(images)[0].cpu()

    @torch.no_grad()
    def map(self, images: Tensor) -> Tensor:
        return self._residuals(images)[1].cpu()

    def _loss(self, images: Tensor, draws: Draws) -> Tensor:
        return self._residuals(images)[0].mean()

    def _residuals(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B] and maps [B, *spatial]."""
        there = images.to(self.setting.device)
        code = self.encoder.to(self.setting.device)(there).float()
        return residuals(self.generator, self.activations, there, code, self.conditions(images))


DETECTOR = DetectorFacts(
    "gan", "Schlegl et al., f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial networks, "
    "MedIA 2019", FastAnoGan, says_where=True, trains=True, needs_gan=True,
)  # fmt: skip
