"""Distance to the nearest normal images in features that were learnt from them by contrast (SimCLR)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.anomaly.detector import DetectorFacts, Normals
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.neighbours import nearest
from pipeline.anomaly.own_features import OnOwnFeatures
from pipeline.supervised.encoders import fit_encoder
from pipeline.supervised.unlabelled import at_rest

_NEIGHBOURS = 2


class ContrastiveNeighbours(OnOwnFeatures):
    """The mean distance to the two nearest; features have unit length, since contrast looks at their angles alone."""

    bank: Tensor

    def fit(self, normals: Normals) -> dict[str, Any]:
        setting, config = self.setting, self.setting.config
        images = enough(normals.train).stored(setting.device)
        fit_encoder(
            "simclr", self.trunk, self.features, images,
            steps=config.steps, batch_size=config.batch_size, hardware=setting.hardware, seed=setting.seed,
        )  # fmt: skip
        at_rest(self.trunk)
        self.keep(bank=F.normalize(self.vectors_of(normals.train)))
        return {"features": self.features}

    def score(self, images: Tensor) -> Tensor:
        return nearest(F.normalize(self.vectors(images)), self.bank, _NEIGHBOURS)[0].mean(dim=1)


DETECTOR = DetectorFacts(
    "self-supervised",
    "Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020 (the features); "
    "nearest normals as Tack et al., CSI, NeurIPS 2020",
    ContrastiveNeighbours,
    trains=True,
    note="CSI without its shifted instances",
)
