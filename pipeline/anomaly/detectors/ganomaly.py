"""GANomaly: the code of an image and that of its reconstruction, which a discriminator takes for a normal image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pipeline.anomaly.detector import Detector, DetectorFacts, Normals, Setting
from pipeline.anomaly.training import built, train_on
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import Autoencoder, ImageEncoder

_CONTEXTUAL, _ADVERSARIAL, _ENCODING = 50.0, 1.0, 1.0
"""Weights of the losses, as in the paper."""


class Ganomaly(Detector):
    """Encoder, decoder and a second encoder, trained by three losses: the absolute residual, feature matching in a
    discriminator, and the distance of both codes, which is the score. The map is the absolute residual.

    Both players move in one step: each term reaches the weights of its own player alone.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        config, shape = setting.config, setting.shape

        def nets() -> nn.Module:
            return nn.ModuleDict(
                {
                    "autoencoder": Autoencoder(shape, config.width, config.latent_dim),
                    "again": ImageEncoder(shape, config.width, config.latent_dim),
                    "features": ImageEncoder(shape, config.width, 4 * config.latent_dim),
                    "judge": nn.Linear(4 * config.latent_dim, 1),
                }
            )

        self.nets = built(setting, nets)

    def fit(self, normals: Normals) -> dict[str, Any]:
        train_on(normals.train, self.nets, self._loss, self.setting, "ganomaly", lr=5e-4)
        return {"parameters": sum(weight.numel() for weight in self.nets.parameters())}

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        _, code, again = self._passed(images)
        return (code - again).square().mean(dim=1)

    @torch.no_grad()
    def map(self, images: Tensor) -> Tensor:
        return (self._passed(images)[0] - images).abs().mean(dim=1)

    def _part(self, name: str) -> nn.Module:
        part: nn.Module = self.nets[name]  # type: ignore[index]
        return part

    def _passed(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstructions, their codes, and the codes of the reconstructions."""
        autoencoder = self._part("autoencoder")
        code = autoencoder.encoder(images)  # type: ignore[operator]
        made = torch.tanh(autoencoder.decoder(code))  # type: ignore[operator]
        return made, code, self._part("again")(made)

    def _loss(self, images: Tensor, draws: Draws) -> Tensor:
        made, code, again = self._passed(images)
        generators = (
            _CONTEXTUAL * (made.float() - images).abs().mean()
            + _ENCODING * (code.float() - again.float()).square().mean()
            + _ADVERSARIAL * self._apart(images, made)
        )
        judged = [self._part("judge")(self._part("features")(each)).float() for each in (images, made.detach())]
        real, fake = (softplus(sign * one).mean() for sign, one in zip((-1, 1), judged, strict=True))
        return generators + real + fake

    def _apart(self, images: Tensor, made: Tensor) -> Tensor:
        """Feature matching, whose gradients reach `made` and leave the discriminator as it is."""
        frozen = {name: weight.detach() for name, weight in self._part("features").named_parameters()}
        features = [torch.func.functional_call(self._part("features"), frozen, (each,)) for each in (images, made)]
        return (features[0].float() - features[1].float()).square().mean()


DETECTOR = DetectorFacts(
    "gan", "Akcay, Atapour-Abarghouei & Breckon, GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training, "
    "ACCV 2018", Ganomaly, says_where=True, note="both players move in one step, by one optimiser",
)  # fmt: skip
