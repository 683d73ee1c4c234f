"""The discriminator of normal images trained further: normal ones against spoilt ones and the GAN's own fakes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pipeline.adversarial.snapshots import snapshots_of
from pipeline.adversarial.weights import load_net
from pipeline.anomaly.corruptions import cut_pasted, with_blobs
from pipeline.anomaly.detector import DetectorFacts, Normals, Setting
from pipeline.anomaly.discriminator import OnGan
from pipeline.anomaly.training import train_on
from pipeline.data.batches.draws import Draws
from pipeline.nets.conditions import as_generator

_LR = 2e-4


class AgainstNegatives(OnGan):
    """Score: minus its logit. A batch of normal images meets as many negatives, in equal parts: cut-pasted ones, ones
    with blobs, means of two of them, samples of the generator, and, where its training left one, samples of the
    generator as it was at the first snapshot.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.gan is not None
        self.judge = self._net[0].requires_grad_()
        early = [load_net(place, "generator")[0] for place in snapshots_of(setting.gan)[:1]]
        self._early = [net.to(setting.device).eval().requires_grad_(False) for net in early]

    def fit(self, normals: Normals) -> dict[str, Any]:
        train_on(normals.train, self.judge, self._loss, self.setting, "the discriminator against negatives", lr=_LR)
        return {"parameters": sum(weight.numel() for weight in self.judge.parameters()), "early": len(self._early)}

    def score(self, images: Tensor) -> Tensor:
        return -self.logits(images)

    def _loss(self, images: Tensor, draws: Draws) -> Tensor:
        negatives = self._negatives(images, draws)
        real, fake = self.judged_by(self.judge, torch.cat([images, negatives])).float().chunk(2)
        return softplus(-real).mean() + softplus(fake).mean()

    @torch.no_grad()
    def _negatives(self, images: Tensor, draws: Draws) -> Tensor:
        others = images.roll(1, dims=0)
        first, second, third, *faked = images.tensor_split(4 + len(self._early))
        mixed = (third + others[len(first) + len(second) :][: len(third)]) / 2
        generators = [self.generator, *map(as_generator, self._early)]
        fakes = [
            self.fakes(one, len(part), draws).to(images.dtype) for one, part in zip(generators, faked, strict=True)
        ]
        return torch.cat([cut_pasted(first, draws), with_blobs(second, draws), mixed, *fakes])


DETECTOR = DetectorFacts(
    "gan", "Zaheer et al., Old is Gold: Redefining the Adversarially Learned One-Class Classifier, CVPR 2020; Li et "
    "al., CutPaste, CVPR 2021", AgainstNegatives, needs_gan=True, trains=True,
    note="with @run without the fakes of an early generator: the run's GAN leaves no snapshots",
)  # fmt: skip
