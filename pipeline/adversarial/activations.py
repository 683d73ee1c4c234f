"""What the layers of a trained discriminator make of an image, and the condition that an image is looked at under."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.nets.conditions import Condition
from pipeline.nets.equalised import EqualConv, EqualLinear, MinibatchDeviation

_LAYERS = (nn.Conv2d, nn.Conv3d, nn.Linear, EqualConv, EqualLinear)


def under_label(label: Tensor, spatial_size: Sequence[int], description: dict[str, Any]) -> Condition:
    """The condition of classes `label` [B] for images of `spatial_size`, with mean attributes and an empty mask.

    Args:
        description: of the net, as `load_net` gives it.
    """
    size, device, attributes = len(label), label.device, len(description["gan"]["attributes"])
    return Condition(
        label=label,
        mask=torch.zeros(size, 1, *spatial_size, device=device),
        attributes=torch.zeros(size, attributes, device=device) if attributes else None,
    )


def image_by_image(net: nn.Module) -> nn.Module:
    """The net itself, which from now on sees an image as if it were alone in its batch."""
    for module in net.modules():
        if isinstance(module, MinibatchDeviation):
            module.group_size = 1
    return net


def activations(net: nn.Module, images: Tensor, condition: Condition) -> list[Tensor]:
    """Of images [B, C, *spatial] behind each convolution and linear layer, in the order of computation.

    [B, D, *grid] or [B, D], on the device, with gradients where they are wanted. A layer that is used more than once
    counts the last time; layers that give one number are left out.
    """
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: found.__setitem__(name, output))
        for name, module in net.named_modules()
        if isinstance(module, _LAYERS)
    ]
    try:
        net(images, condition)
    finally:
        for hook in hooks:
            hook.remove()
    return [output for output in found.values() if len(output) == len(images) and output.shape[1] > 1]
