"""A Gaussian of a frozen network's features at every place (PaDiM; Defard et al., ICPR workshops 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.anomaly.detector import Detector, DetectorFacts, Normals, Setting
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.maps import smoothed, spread_over
from pipeline.nets.extractors import EffNetLite0
from pipeline.nets.feature_maps import feature_maps

_FEATURES = {2: 100, 3: 40}
"""Drawn at random among a place's features: fewer in 3D, where each slice has its own places."""
_RIDGE = 0.01
_SIGMA = 4.0
"""Of the smoothing, in pixels of a map of EffNetLite0.SIDE."""


class PatchDistributions(Detector):
    """Mahalanobis distance place by place; the score is the largest of the smoothed map."""

    chosen: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._maps = feature_maps(setting.features, setting.device)

    def fit(self, normals: Normals) -> dict[str, Any]:
        count, dims = 0, self.setting.shape.spatial_dims
        for block in enough(normals.train).blocks():
            maps = self._maps(block)
            if not count:
                random = torch.Generator().manual_seed(self.setting.seed)
                chosen = torch.randperm(maps.shape[1], generator=random)[: _FEATURES[dims]]
                places = maps[0, 0].numel()
                sums = torch.zeros(places, len(chosen), dtype=torch.float64)
                squares = torch.zeros(places, len(chosen), len(chosen), dtype=torch.float64)
            features = self._by_place(maps, chosen).double()
            sums += features.sum(dim=1)
            squares += features.transpose(1, 2) @ features
            count += len(block)
        mean = sums / count
        covariance = (squares - count * mean[:, :, None] * mean[:, None, :]) / (count - 1)
        covariance += _RIDGE * torch.eye(len(chosen), dtype=torch.float64)
        whitening = torch.linalg.inv(torch.linalg.cholesky(covariance)).transpose(1, 2)
        self.keep(chosen=chosen, mean=mean.float(), whitening=whitening.float())
        return {"places": places, "features": len(chosen), "network": self._maps.name}

    def score(self, images: Tensor) -> Tensor:
        return self._distances(images).flatten(1).amax(dim=1)

    def map(self, images: Tensor) -> Tensor:
        return spread_over(self._distances(images), images.shape[2:])

    def _distances(self, images: Tensor) -> Tensor:
        """Smoothed maps [B, (slices,) side, side]."""
        maps = self._maps(images)
        centred = self._by_place(maps, self.chosen) - self.mean[:, None]
        distance = torch.linalg.vector_norm(centred @ self.whitening, dim=2).T.reshape(len(maps), *maps.shape[2:])
        size = (*maps.shape[2:-2], EffNetLite0.SIDE, EffNetLite0.SIDE)
        return smoothed(spread_over(distance, size), _SIGMA)

    @staticmethod
    def _by_place(maps: Tensor, chosen: Tensor) -> Tensor:
        """[B, D, *grid] -> [places, B, chosen]."""
        return maps.index_select(1, chosen).flatten(2).permute(2, 0, 1)


DETECTOR = DetectorFacts(
    "features", "Defard et al., PaDiM: a Patch Distribution Modeling Framework, ICPR workshops 2021",
    PatchDistributions, says_where=True, note="EfficientNet-Lite0 at 128 x 128; volumes in 16 slices at most",
)  # fmt: skip
