"""Distance to the nearest normal images in a frozen network's features (Bergman, Cohen & Hoshen, arXiv:2002.10445)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pipeline.anomaly.detector import DetectorFacts, Normals
from pipeline.anomaly.frozen import OnFrozenFeatures
from pipeline.anomaly.neighbours import nearest

_NEIGHBOURS = 2


class NearestNeighbours(OnFrozenFeatures):
    """The mean distance to the two nearest."""

    bank: Tensor

    def fit(self, normals: Normals) -> dict[str, Any]:
        self.keep(bank=self.vectors_of(normals.train))
        return {"features": self.bank.shape[1]}

    def score(self, images: Tensor) -> Tensor:
        return nearest(self.vectors(images), self.bank, _NEIGHBOURS)[0].mean(dim=1)


DETECTOR = DetectorFacts(
    "features", "Bergman, Cohen & Hoshen, Deep Nearest Neighbor Anomaly Detection, arXiv:2002.10445", NearestNeighbours
)
