"""An unpaired translator to normal, taught by an archive that nobody labelled: what it changes is unlike normal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.adversarial.adaptation import augmenter_of
from pipeline.adversarial.coupling import DOMAINS
from pipeline.adversarial.families.cyclegan import FAMILY, CycleganConfig
from pipeline.adversarial.family import Nets
from pipeline.anomaly.detector import NOTHING_MIXED, Detector, DetectorFacts, ImageSet, Normals, Setting
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.playing import play
from pipeline.anomaly.training import built
from pipeline.core.errors import DataError
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.streams import Stream, images_at
from pipeline.nets.conditions import Condition
from pipeline.nets.sizes import ImageShape
from pipeline.nets.translators import DomainTranslators, ResidualTranslator

_MIXED, _NORMAL = 0, 1
"""The two classes of the translation: domain a and domain b."""
_SHARE = 16
"""A step, with four translations there and back, sees a sixteenth of the batch of other detectors: they cost alike."""


class CycleHealthy(Detector):
    """The recipe of the family `cyclegan` between `Normals.mixed` and `Normals.train`; no label of `mixed` is read.

    The map is the absolute difference between an image and its translation to normal, the score its mean. Cycles and
    the identity loss hold the translation to what differs between the two domains. The state is the averaged translator
    to normal; the way back and the discriminators are thrown away.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        config = setting.config
        size = max(2, config.batch_size // _SHARE)
        self._gan = CycleganConfig(
            num_images=config.steps * size,
            batch_size=size,
            generator_width=2 * config.width,
            discriminator_width=config.width,
        )
        self.to_normal = _to_normal(built(setting, self._nets))

    def _nets(self) -> Nets:
        shape = self.setting.shape
        return FAMILY.nets(self._gan, ImageShape(shape.spatial_size, shape.channels, 2, positive=(_NORMAL,)))

    def fit(self, normals: Normals) -> dict[str, Any]:
        """Learn.

        Raises:
            DataError: there are too few normal images, or no other ones to translate from.
        """
        enough(normals.train)
        if normals.nothing_mixed:
            raise DataError(f"anomaly: {NOTHING_MIXED}")
        domains = (normals.mixed, _MIXED), (normals.train, _NORMAL)
        streams = {name: self._stream(*domain) for name, domain in zip(DOMAINS, domains, strict=True)}
        augment = augmenter_of(self._gan, len(normals.mixed) + len(normals.train), None)
        nets = built(self.setting, self._nets)
        self.to_normal = _to_normal(play(FAMILY.recipe(self._gan), nets, streams, self.setting, augment, self._gan.ema))
        weights = sum(weight.numel() for weight in self.to_normal.parameters())
        return {"parameters": weights, "mixed_images": len(normals.mixed)}

    def _stream(self, images: ImageSet, label: int) -> Stream:
        stored = images_at(
            images.dataset, images.rows, torch.full((len(images),), label, dtype=torch.int64), self.setting.device
        )
        return Stream(stored, self._gan.batch_size, derive_seed(self.setting.seed, "order", label), balanced=False)

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        return self.map(images).flatten(1).mean(dim=1)

    @torch.no_grad()
    def map(self, images: Tensor) -> Tensor:
        asked = Condition(label=torch.full((len(images),), _NORMAL))
        return (self.to_normal(images, asked) - images).abs().mean(dim=1)


def _to_normal(nets: Nets) -> ResidualTranslator:
    """Of the two translators the one that is kept."""
    generator = nets["generator"]
    assert isinstance(generator, DomainTranslators)
    return generator.to_b


DETECTOR = DetectorFacts(
    "gan", "Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017; "
    "for lesions Sun et al., An Adversarial Learning Approach to Medical Image Synthesis for Lesion Detection, IEEE "
    "JBHI 2020",
    CycleHealthy, says_where=True, trains=True, needs_mixed=True,
    note="the images that it translates from are the training and unlabelled ones, normal or not, so most may be "
    "normal; without an abnormal or unlabelled training image it has nothing to learn from and is skipped",
)  # fmt: skip
