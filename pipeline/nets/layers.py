"""Torch's layers by number of spatial dimensions, so that one net is written for images and volumes.

MONAI's factories give the same classes; but to import any part of MONAI is to import all of it, with scikit-learn,
SciPy and Matplotlib: three seconds of every process that builds or counts a net. What is not in torch (its ResNet, its
DenseNet) is imported where it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

Layers = Mapping[int, Callable[..., Any]]
CONV: Layers = {2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE: Layers = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM: Layers = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: Layers = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL: Layers = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE_POOL: Layers = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
