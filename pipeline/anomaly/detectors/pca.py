"""What the principal components of normal images leave over of an image (scikit-learn's PCA)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.anomaly.detector import Detector, DetectorFacts, Normals
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.maps import spread_over
from pipeline.anomaly.thumbnails import averaged_down

_SIDES = {2: 64, 3: 32}
"""Images with longer sides are averaged down to these."""
_KEPT = 0.95
"""Of the variance of normal images."""


class PrincipalComponents(Detector):
    """The mean squared residual; its map is the squared residual voxel by voxel."""

    mean: Tensor
    components: Tensor

    def fit(self, normals: Normals) -> dict[str, Any]:
        from sklearn.decomposition import PCA

        pixels = torch.cat([self._pixels(block).flatten(1) for block in enough(normals.train).blocks()])
        found = PCA(_KEPT, svd_solver="full").fit(pixels.double().numpy())
        self.keep(mean=torch.from_numpy(found.mean_).float(), components=torch.from_numpy(found.components_).float())
        return {"components": len(found.components_)}

    def score(self, images: Tensor) -> Tensor:
        return self._squares(images).flatten(1).mean(dim=1)

    def map(self, images: Tensor) -> Tensor:
        return spread_over(self._squares(images).mean(dim=1), images.shape[2:])

    @staticmethod
    def _pixels(images: Tensor) -> Tensor:
        return averaged_down(images, _SIDES[images.ndim - 2])

    def _squares(self, images: Tensor) -> Tensor:
        """Squared residuals [B, C, *grid]."""
        pixels = self._pixels(images)
        centred = pixels.flatten(1) - self.mean
        left = centred - (centred @ self.components.T) @ self.components
        return left.square().view(pixels.shape)


DETECTOR = DetectorFacts(
    "plain", "Shyu et al., A Novel Anomaly Detection Scheme Based on Principal Component Classifier, 2003, by "
    "the residual alone; scikit-learn", PrincipalComponents, says_where=True,
)  # fmt: skip
