"""One feature vector an image, from a small network that the detector trains by itself on normal images."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.anomaly.detector import Detector, ImageSet, Setting
from pipeline.anomaly.training import built
from pipeline.nets.classifiers import SmallCnn, pooled


class OnOwnFeatures(Detector):
    """A detector that sees an image as the means over the grid of its own trunk, the convolutions of `SmallCnn`."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        shape, width = setting.shape, setting.config.width
        self.trunk = built(setting, lambda: SmallCnn(shape.spatial_dims, shape.channels, 1, width).features)
        self.features = 8 * width

    @torch.no_grad()
    def grids(self, images: Tensor) -> Tensor:
        """[B, C, *spatial] in [-1, 1] -> [B, features, *grid]; the trunk is in evaluation mode."""
        found: Tensor = self.trunk(images)
        return found

    def vectors(self, images: Tensor) -> Tensor:
        """[B, C, *spatial] in [-1, 1] -> [B, features]."""
        return pooled(self.grids(images))

    def vectors_of(self, images: ImageSet) -> Tensor:
        """Of all of them."""
        return torch.cat([self.vectors(block) for block in images.blocks()])
