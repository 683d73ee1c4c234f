"""f-AnoGAN: an encoder finds the latent code from which the GAN of normal images makes the image again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.anomaly.detector import DetectorFacts, Normals, Setting
from pipeline.anomaly.discriminator import OnGan
from pipeline.anomaly.training import built, train_on
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import ImageEncoder

_KAPPA = 1.0
"""Weight of the residual in the discriminator's features, as in the paper."""


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
        scores, maps = [], []
        for condition in self.conditions(images):
            made = self.generator(code, condition).float()
            squares = (made - there).square().mean(dim=1)
            features = [self.activations(each, condition)[-1].float().flatten(1) for each in (there, made)]
            apart = (features[0] - features[1]).square().mean(dim=1)
            scores.append(squares.flatten(1).mean(dim=1) + _KAPPA * apart)
            maps.append(squares)
        nearest = torch.stack(scores).argmin(dim=0)
        each = torch.arange(len(images), device=nearest.device)
        return torch.stack(scores)[nearest, each], torch.stack(maps)[nearest, each]


DETECTOR = DetectorFacts(
    "gan", "Schlegl et al., f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial networks, "
    "MedIA 2019", FastAnoGan, says_where=True, needs_gan=True,
)  # fmt: skip
