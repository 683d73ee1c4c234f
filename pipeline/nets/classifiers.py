"""Downstream classifiers: images [B, C, *spatial] -> logits [B, num_classes]."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from pipeline.nets.layers import BATCH_NORM, CONV, MAX_POOL
from pipeline.nets.pretrained import PretrainedEffNet


class SmallCnn(nn.Module):
    """Four 3 x 3 convolutions with batch norm, pooled three times, global average: about 100,000 weights in 2D.

    In 3D the first convolution takes every second voxel: at full size it would cost more than all others together.
    """

    def __init__(self, spatial_dims: int, channels: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        conv, norm, pool = CONV[spatial_dims], BATCH_NORM[spatial_dims], MAX_POOL[spatial_dims]
        strides = (1 if spatial_dims == 2 else 2, 1, 1)
        layers: list[nn.Module] = []
        for level, stride in enumerate(strides):
            before, after = width * 2 ** (level - 1) if level else channels, width * 2**level
            layers += [conv(before, after, 3, stride=stride, padding=1, bias=False), norm(after), nn.ReLU(inplace=True)]
            layers += [pool(2)] if level or stride == 1 else []
        layers += [conv(4 * width, 8 * width, 3, padding=1, bias=False), norm(8 * width), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(8 * width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).flatten(2).mean(dim=2))
        return logits


def _densenet121(spatial_dims: int, channels: int, num_classes: int) -> nn.Module:
    from monai.networks.nets import DenseNet121  # here, because it brings all of MONAI

    return DenseNet121(spatial_dims=spatial_dims, in_channels=channels, out_channels=num_classes)


def _resnet18(spatial_dims: int, channels: int, num_classes: int) -> nn.Module:
    """MONAI's ResNet-18 with a first convolution of 3 voxels and stride 1: the images here are small."""
    from monai.networks.nets import ResNet  # here, because it brings all of MONAI

    return ResNet(
        "basic", [2, 2, 2, 2], [64, 128, 256, 512], spatial_dims=spatial_dims, n_input_channels=channels,
        num_classes=num_classes, conv1_t_size=3, conv1_t_stride=1,
    )  # fmt: skip


class TrunkClassifier(nn.Module):
    """A trunk [B, C, *spatial] -> [B, features, *grid], mean over the grid, standardisation, a last layer.

    The batch norm without weights makes trunks comparable whose features differ in size by orders of magnitude.
    """

    def __init__(self, trunk: nn.Module, features: int, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Sequential(
            nn.BatchNorm1d(features, affine=False), nn.Dropout(0.2), nn.Linear(features, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(pooled(self.trunk(images)))
        return logits


def pooled(grid: Tensor) -> Tensor:
    """[B, features, *grid] -> [B, features], the mean over the grid."""
    return grid.flatten(2).mean(dim=2)


def last_layer(net: nn.Module) -> nn.Linear:
    """The linear layer that makes a classifier's logits."""
    return [module for module in net.modules() if isinstance(module, nn.Linear)][-1]


_LAST_GRIDS = ("class_layers.relu", "layer4", "trunk._swish", "trunk")
"""Of DenseNet, ResNet, EfficientNet and `TrunkClassifier`, by their modules' names."""


def last_grid(net: nn.Module) -> nn.Module | None:
    """The module whose last output is a classifier's last grid of features [B, features, *grid]; None if not known.

    Of `SmallCnn` the one before the last pooling: the last one is 3 x 3 for images of 24 x 24.
    """
    if isinstance(net, SmallCnn):
        return net.features[-5]
    named = dict(net.named_modules())
    return next((named[name] for name in _LAST_GRIDS if name in named), None)


def _pretrained(spatial_dims: int, channels: int, num_classes: int) -> nn.Module:
    del spatial_dims  # it takes both
    return PretrainedEffNet(channels, num_classes)


PRETRAINED = "efficientnet-lite0"
CLASSIFIERS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "small_cnn": SmallCnn,
    "densenet121": _densenet121,
    "resnet18": _resnet18,
    PRETRAINED: _pretrained,
}


def make_classifier(network: str, *, spatial_dims: int, channels: int, num_classes: int) -> nn.Module:
    return CLASSIFIERS[network](spatial_dims, channels, num_classes)
