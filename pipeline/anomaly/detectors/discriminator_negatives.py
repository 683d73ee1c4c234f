"""The discriminator of normal images trained further: normal ones against spoilt ones and the GAN's own fakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pipeline.adversarial.weights import load_net
from pipeline.anomaly.corruptions import cut_pasted, with_blobs
from pipeline.anomaly.detector import DetectorFacts, Normals, Setting
from pipeline.anomaly.discriminator import OnDiscriminator
from pipeline.anomaly.training import train_on
from pipeline.core.errors import ConfigError
from pipeline.data.batches.draws import Draws
from pipeline.nets.conditions import Condition, Generator, as_generator

_LR = 2e-4


class AgainstNegatives(OnDiscriminator):
    """Score: minus its logit. A batch of normal images meets as many negatives: cut-pasted ones, ones with blobs, the
    mean of two of them, and samples of the generator, a quarter each.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.gan is not None
        self.judge = self._net[0].requires_grad_()
        generator, description = load_net(setting.gan, "generator")
        if description["gan"]["family"] in _NEEDS_MORE_THAN_NOISE:
            raise ConfigError(
                f"anomaly.detectors: the generator of {description['gan']['family']} does not make images from noise "
                "alone. Leave out discriminator-negatives, or choose another gan.family."
            )
        self._generator = [generator.to(setting.device).requires_grad_(False)]

    def fit(self, normals: Normals) -> dict[str, Any]:
        generator = as_generator(self._generator[0])
        train_on(
            normals.train, self.judge, lambda images, draws: self._loss(images, draws, generator), self.setting,
            "the discriminator against negatives", lr=_LR,
        )  # fmt: skip
        return {"parameters": sum(weight.numel() for weight in self.judge.parameters())}

    def score(self, images: Tensor) -> Tensor:
        return -self.logits(images)

    def _loss(self, images: Tensor, draws: Draws, generator: Generator) -> Tensor:
        negatives = self._negatives(images, draws, generator)
        logits = self._judged(torch.cat([images, negatives]))
        real, fake = logits.float().chunk(2)
        return softplus(-real).mean() + softplus(fake).mean()

    def _judged(self, images: Tensor) -> Tensor:
        found = [self.judge(images, one).logits.reshape(len(images), -1).mean(dim=1) for one in self.conditions(images)]
        return torch.stack(found).amax(dim=0)

    @torch.no_grad()
    def _negatives(self, images: Tensor, draws: Draws, generator: Generator) -> Tensor:
        first, second, third, fourth = images.tensor_split(4)
        others = images[draws.randint(len(images), (len(third),))]
        z = draws.randn((len(fourth), generator.latent_dim))
        fakes = generator(z, self._asked(len(fourth), draws)).to(images.dtype)
        return torch.cat([cut_pasted(first, draws), with_blobs(second, draws), (third + others) / 2, fakes])

    def _asked(self, number: int, draws: Draws) -> Condition:
        """Normal classes at random, [number]."""
        labels = torch.tensor(self._labels, device=self.setting.device)
        return Condition(label=labels[draws.randint(len(labels), (number,))])


_NEEDS_MORE_THAN_NOISE: Sequence[str] = ("cyclegan", "pix2pix", "spade")
DETECTOR = DetectorFacts(
    "gan", "Zaheer et al., Old is Gold: Redefining the Adversarially Learned One-Class Classifier, CVPR 2020; Li et "
    "al., CutPaste, CVPR 2021", AgainstNegatives, needs_gan=True,
    note="negatives are spoilt images and fakes of the finished generator; the paper adds those of an early one",
)  # fmt: skip
