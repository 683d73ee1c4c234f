"""Minus the discriminator's logit: large for what does not look real to it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pipeline.anomaly.detector import DetectorFacts, Normals
from pipeline.anomaly.discriminator import OnDiscriminator


class Logit(OnDiscriminator):
    """The discriminator's last number alone. It says little at the end of a training, when fakes look real to it."""

    def fit(self, normals: Normals) -> dict[str, Any]:
        return {}

    def score(self, images: Tensor) -> Tensor:
        return -self.logits(images)


DETECTOR = DetectorFacts(
    "gan", "Zenati et al., Efficient GAN-Based Anomaly Detection, arXiv:1802.06222 (its discriminator alone)", Logit,
    needs_gan=True,
)  # fmt: skip
