"""Distance from one Gaussian of normal images in a frozen network's features (Rippel et al., ICPR 2020)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pipeline.anomaly.detector import DetectorFacts, Normals
from pipeline.anomaly.frozen import OnFrozenFeatures
from pipeline.anomaly.neighbours import mahalanobis, shrunk_gaussian


class MahalanobisDistance(OnFrozenFeatures):
    """Of the last pooled features; the covariance is shrunk as Ledoit & Wolf say."""

    mean: Tensor
    whitening: Tensor

    def fit(self, normals: Normals) -> dict[str, Any]:
        mean, whitening = shrunk_gaussian(self.vectors_of(normals.train))
        self.keep(mean=mean, whitening=whitening)
        return {"features": len(mean)}

    def score(self, images: Tensor) -> Tensor:
        return mahalanobis(self.vectors(images), self.mean, self.whitening)


DETECTOR = DetectorFacts(
    "features",
    "Rippel, Mertens & Merhof, Modeling the Distribution of Normal Data in Pre-Trained Deep Features, ICPR 2020",
    MahalanobisDistance,
    note="one level of features; the paper sums over nine",
)
