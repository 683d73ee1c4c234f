"""The discriminator of normal images trained further: normal ones against spoilt ones and the GAN's own fakes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pipeline.anomaly.corruptions import cut_pasted, with_blobs
from pipeline.anomaly.detector import DetectorFacts, Normals, Setting
from pipeline.anomaly.discriminator import OnGan
from pipeline.anomaly.training import train_on
from pipeline.data.batches.draws import Draws
from pipeline.nets.conditions import Condition

_LR = 2e-4


class AgainstNegatives(OnGan):
    """Score: minus its logit. A batch of normal images meets as many negatives: cut-pasted ones, ones with blobs, the
    mean of two of them, and samples of the generator, a quarter each.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.judge = self._net[0].requires_grad_()

    def fit(self, normals: Normals) -> dict[str, Any]:
        train_on(normals.train, self.judge, self._loss, self.setting, "the discriminator against negatives", lr=_LR)
        return {"parameters": sum(weight.numel() for weight in self.judge.parameters())}

    def score(self, images: Tensor) -> Tensor:
        return -self.logits(images)

    def _loss(self, images: Tensor, draws: Draws) -> Tensor:
        negatives = self._negatives(images, draws)
        logits = self._judged(torch.cat([images, negatives]))
        real, fake = logits.float().chunk(2)
        return softplus(-real).mean() + softplus(fake).mean()

    def _judged(self, images: Tensor) -> Tensor:
        found = [self.judge(images, one).logits.reshape(len(images), -1).mean(dim=1) for one in self.conditions(images)]
        return torch.stack(found).amax(dim=0)

    @torch.no_grad()
    def _negatives(self, images: Tensor, draws: Draws) -> Tensor:
        first, second, third, fourth = images.tensor_split(4)
        others = images[draws.randint(len(images), (len(third),))]
        z = draws.randn((len(fourth), self.generator.latent_dim))
        fakes = self.generator(z, self._asked(len(fourth), draws)).to(images.dtype)
        return torch.cat([cut_pasted(first, draws), with_blobs(second, draws), (third + others) / 2, fakes])

    def _asked(self, number: int, draws: Draws) -> Condition:
        """Normal classes at random, [number]."""
        labels = torch.tensor(self._labels, device=self.setting.device)
        return Condition(label=labels[draws.randint(len(labels), (number,))])


DETECTOR = DetectorFacts(
    "gan", "Zaheer et al., Old is Gold: Redefining the Adversarially Learned One-Class Classifier, CVPR 2020; Li et "
    "al., CutPaste, CVPR 2021", AgainstNegatives, needs_gan=True,
    note="negatives are spoilt images and fakes of the finished generator; the paper adds those of an early one",
)  # fmt: skip
