"""Products of two sets of features in blocks, on a device: what has all pairs never lies in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def products(one: np.ndarray, two: np.ndarray, block: int, device: str = "cpu") -> Iterator[tuple[slice, Tensor]]:
    """Blocks of the inner products [N, M] of two sets [N, D] and [M, D], with their rows: float64, on `device`.

    A block has `block` rows; apart from it, one set in float64 is all that is held.
    """
    right = on_device(two, device).T
    for start in range(0, len(one), block):
        rows = slice(start, min(start + block, len(one)))
        yield rows, on_device(one[rows], device) @ right


def on_device(features: np.ndarray, device: str = "cpu") -> Tensor:
    """Features as float64 on `device`; on the CPU where the device has no float64 (mps)."""
    return torch.from_numpy(np.array(features, dtype=np.float64)).to("cpu" if device == "mps" else device)
