"""Where in an image a classifier finds what speaks for a class: Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.core.compute import Hardware
from pipeline.data.batches.dataset import DataSet
from pipeline.nets.classifiers import last_grid
from pipeline.supervised.batches import channels_last

_VALUES = 2**21
"""Voxels that are looked at together, at most."""
_SIDES = {2: 32, 3: 16}
"""Of the grid that maps are kept on, at most: a classifier's own last grid is coarser still."""


def attention_maps(
    net: nn.Module, dataset: DataSet, rows: np.ndarray, classes: Sequence[str], hardware: Hardware
) -> np.ndarray | None:
    """Maps [N, *grid] from 0 to 1, uint8 of 0 to 255, for the images at `rows`, of what speaks for their own class.

    Each is scaled to its largest value, and is zero everywhere where nothing speaks for the class. None where the
    network has no grid of its own for an image, such as one that looks at a volume plane by plane.
    """
    labels, found = dataset.labels(rows, classes), []
    size = max(1, min(len(rows), _VALUES // int(np.prod(dataset.images.shape[1:]))))
    sides = [min(side, _SIDES[dataset.images.ndim - 2]) for side in dataset.images.shape[2:]]
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        images = dataset.tensor(rows[part]).to(hardware.device)
        maps = gradcam(net, images, labels[part].to(hardware.device))
        if maps is None:
            return None
        mode = "bilinear" if maps.ndim == 3 else "trilinear"
        grown = functional.interpolate(maps[:, None], size=sides, mode=mode, align_corners=False)[:, 0]
        found.append((scaled(grown) * 255).round().to(torch.uint8).cpu().numpy())
    return np.concatenate(found)


def scaled(maps: Tensor) -> Tensor:
    """Maps [B, *grid], none below 0, each with 1 for its largest value; one of zeros stays as it is."""
    most = maps.flatten(1).amax(dim=1).view(-1, *[1] * (maps.ndim - 1))
    return maps / most.clamp_min(torch.finfo(maps.dtype).tiny)


def gradcam(net: nn.Module, images: Tensor, targets: Tensor) -> Tensor | None:
    """Grad-CAM [B, *grid] on the network's `last_grid` of features (Selvaraju et al., ICCV 2017).

    The features' sum, each weighted by the mean of the target logit's gradient over the grid, where it is above 0.
    A test pins it to MONAI's, whose import would take longer than the maps of a small classifier.

    Args:
        images: [B, C, *spatial] in [-1, 1].
        targets: [B] class numbers.

    Returns:
        None where the network has no grid for each image.
    """
    layer, grids = last_grid(net), []
    if layer is None:
        return None
    hook = layer.register_forward_hook(lambda module, given, made: grids.append(made))
    try:
        with torch.enable_grad():
            logits = net(channels_last(images.requires_grad_()))
            grid = grids[-1]
            if grid.ndim != images.ndim or len(grid) != len(images):
                return None
            (slopes,) = torch.autograd.grad(logits.float().gather(1, targets[:, None]).sum(), grid)
    finally:
        hook.remove()
    weights = slopes.flatten(2).mean(dim=2).view(*slopes.shape[:2], *[1] * (slopes.ndim - 2))
    return (weights * grid.detach()).sum(dim=1).relu().float()
