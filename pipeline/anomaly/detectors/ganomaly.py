"""GANomaly: the code of an image and that of its reconstruction, which a discriminator takes for a normal image."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from pipeline.adversarial.objectives import LOGISTIC
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.turns import Turn
from pipeline.anomaly.detector import Detector, DetectorFacts, Normals, Setting
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.playing import NOT_AUGMENTED, play
from pipeline.anomaly.training import built
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.streams import Stream
from pipeline.nets.normed_autoencoders import NormedEncoder, Reencoder

_CONTEXTUAL, _ADVERSARIAL, _ENCODING = 50.0, 1.0, 1.0
"""Weights of the losses, as in the paper."""
_ADAM = OptimizerSettings(lr=2e-4, betas=(0.5, 0.999))


class GanomalyTurn(Turn):
    """A batch, its reconstructions, and what the discriminator makes of both."""

    @property
    def images(self) -> Tensor:
        return self.batch.images

    @cached_property
    def passed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstructions [B, C, *spatial], the images' codes [B, numbers], and those of the reconstructions."""
        with torch.set_grad_enabled("generator" in self.trains), self.context.autocast:
            made, code, again = self.context.nets["generator"](self.images)
        return made.float(), code.float(), again.float()

    def _judged(self, images: Tensor) -> Tensor:
        with self.context.autocast:
            logits: Tensor = self.context.nets["discriminator"](images)
        return logits.float()

    @property
    def real_logits(self) -> Tensor:
        return self._judged(self.images)

    @property
    def fake_logits(self) -> Tensor:
        return self._judged(self.passed[0])

    @cached_property
    def features(self) -> tuple[Tensor, Tensor]:
        """The discriminator's of the images and of the reconstructions, [B, D, *grid]."""
        judge = self.context.nets["discriminator"]
        assert isinstance(judge, NormedEncoder)
        with self.context.autocast:
            return judge.features(self.images).float(), judge.features(self.passed[0]).float()


def contextual(turn: GanomalyTurn) -> Tensor:
    """mean |G(x) - x| (equation 2)."""
    return l1_loss(turn.passed[0], turn.images)


def encoding(turn: GanomalyTurn) -> Tensor:
    """mean (E(G(x)) - G_E(x))² (equation 3)."""
    return mse_loss(turn.passed[2], turn.passed[1])


def feature_matching(turn: GanomalyTurn) -> Tensor:
    """mean (f(G(x)) - f(x))² of the discriminator's last features (equation 1)."""
    real, fake = turn.features
    return mse_loss(fake, real)


RECIPE = Recipe(
    players=(
        Player("discriminator", ("discriminator",), (LOGISTIC.discriminator,), _ADAM),
        Player(
            "generator",
            ("generator",),
            (
                Weighted("contextual", contextual, _CONTEXTUAL),
                Weighted("encoding", encoding, _ENCODING),
                Weighted("feature_matching", feature_matching, _ADVERSARIAL),
            ),
            _ADAM,
        ),
    ),
    turn=GanomalyTurn,
)


class Ganomaly(Detector):
    """Encoder, decoder and a second encoder; the score is the mean squared distance of both codes, as in the authors'
    code, where the paper's text has the absolute one. The map is the absolute residual.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.generator = built(setting, self._nets)[0]

    def _nets(self) -> tuple[Reencoder, NormedEncoder]:
        """The autoencoder with its second encoder, and the discriminator, whose one number is its logit."""
        shape, width = self.setting.shape, self.setting.config.width
        return Reencoder(shape, width, self.setting.config.latent_dim), NormedEncoder(shape, width, 1)

    def fit(self, normals: Normals) -> dict[str, Any]:
        setting, config = self.setting, self.setting.config
        size = min(config.batch_size, len(enough(normals.train)))
        order = derive_seed(setting.seed, "order")
        stream = Stream(normals.train.stored(setting.device), size, order, balanced=False)
        nets = dict(zip(("generator", "discriminator"), built(setting, self._nets), strict=True))
        found = play(RECIPE, nets, {"labelled": stream}, setting, NOT_AUGMENTED, ema=0)["generator"]
        assert isinstance(found, Reencoder)
        self.generator = found
        return {"parameters": sum(weight.numel() for weight in self.generator.parameters())}

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        _, code, again = self.generator(images)
        return (code - again).square().mean(dim=1)

    @torch.no_grad()
    def map(self, images: Tensor) -> Tensor:
        return (self.generator(images)[0] - images).abs().mean(dim=1)


DETECTOR = DetectorFacts(
    "gan", "Akcay, Atapour-Abarghouei & Breckon, GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training, "
    "ACCV 2018", Ganomaly, says_where=True, trains=True,
)  # fmt: skip
