"""Distance from normal images in features that tell them from spoilt copies (CutPaste; Li et al., CVPR 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.anomaly.corruptions import cut_pasted, scarred
from pipeline.anomaly.detector import DetectorFacts, Normals
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.neighbours import mahalanobis, shrunk_gaussian
from pipeline.anomaly.own_features import OnOwnFeatures
from pipeline.core.compute import autocast, place
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import StoredImages, Stream
from pipeline.nets.classifiers import pooled
from pipeline.supervised.loop import minimise

_KINDS = 3
"""Normal, with a box pasted in, with a scar: their three-way task."""
_LR, _WEIGHT_DECAY = 1e-3, 1e-4


class CutPaste(OnOwnFeatures):
    """A classifier learns normal, cut-pasted and scarred apart; the score is the Mahalanobis distance from a Gaussian
    of the normal images' features, its covariance shrunk as Ledoit & Wolf say."""

    mean: Tensor
    whitening: Tensor

    def fit(self, normals: Normals) -> dict[str, Any]:
        self._train(enough(normals.train).stored(self.setting.device))
        mean, whitening = shrunk_gaussian(self.vectors_of(normals.train))
        self.keep(mean=mean, whitening=whitening)
        return {"features": self.features}

    def score(self, images: Tensor) -> Tensor:
        return mahalanobis(self.vectors(images), self.mean, self.whitening)

    def _train(self, images: StoredImages) -> None:
        config, hardware, seed = self.setting.config, self.setting.hardware, self.setting.seed
        stream = Stream(images, config.batch_size, derive_seed(seed, "order"), balanced=False)
        draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(seed, "corruptions")))
        kinds = torch.arange(_KINDS, device=hardware.device).repeat_interleave(config.batch_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "head"))
            head = place(nn.Linear(self.features, _KINDS), hardware)

        def loss(_: int) -> Tensor:
            normal = stream.next().images
            batch = torch.cat([normal, cut_pasted(normal, draws), scarred(normal, draws)])
            with autocast(hardware):
                logits = head(pooled(self.trunk(batch)))
            return nn.functional.cross_entropy(logits.float(), kinds)

        self.trunk.train()
        weights = [*self.trunk.parameters(), *head.parameters()]
        minimise(loss, weights, steps=config.steps, lr=_LR, weight_decay=_WEIGHT_DECAY, what="the CutPaste network")
        self.trunk.eval()


DETECTOR = DetectorFacts(
    "self-supervised", "Li et al., CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR "
    "2021",
    CutPaste, note="a small network from scratch; patches keep their brightness; no map",
)  # fmt: skip
