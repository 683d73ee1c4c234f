"""One feature vector an image, from a network that nobody trains here."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.anomaly.detector import Detector, ImageSet, Setting
from pipeline.core.errors import DataError
from pipeline.nets.extractors import EffNetLite0
from pipeline.nets.feature_maps import ScriptedMaps

FEWEST = 4
"""Normal images below which no detector learns anything."""


class OnFrozenFeatures(Detector):
    """A detector that sees an image as one vector: EfficientNet-Lite0's 1280 pooled features (of a volume the mean of
    its three middle planes), or the means of the user's feature maps."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._maps = None if setting.features is None else ScriptedMaps(setting.features, setting.device)
        self._pooled = EffNetLite0(setting.device)

    def vectors(self, images: Tensor) -> Tensor:
        """[B, C, *spatial] in [-1, 1] -> [B, D], float32 on the CPU."""
        if self._maps is not None:
            return self._maps(images).flatten(2).mean(dim=2)
        return self._pooled.extract(images)

    def vectors_of(self, images: ImageSet) -> Tensor:
        """Of all of them.

        Raises:
            DataError: there are fewer than FEWEST images.
        """
        return torch.cat([self.vectors(block) for block in enough(images).blocks()])


def enough(images: ImageSet, fewest: int = FEWEST) -> ImageSet:
    """The images themselves.

    Raises:
        DataError: there are fewer than `fewest`.
    """
    if len(images) < fewest:
        raise DataError(
            f"anomaly: the fold has {len(images)} normal training images; this detector needs {fewest}. "
            "Give more patients whose images are all normal, or leave the detector out of anomaly.detectors."
        )
    return images
