"""The other way to share: what a frozen network makes of the synthetic images, without the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from pipeline.core.files import atomic_path

FEATURES = "features.safetensors"
_KEY = "features"


@dataclass(frozen=True)
class Features:
    """Features of a pack's images: float32 [N, D] in their order, and the network that made them."""

    values: np.ndarray
    encoder: str


def write_features(root: Path, features: Features) -> None:
    """Write `features.safetensors`: row i is the image of row i of provenance.csv."""
    with atomic_path(root / FEATURES) as temporary:
        save_file({_KEY: features.values.astype(np.float32)}, temporary, metadata={"encoder": features.encoder})


def num_features(root: Path) -> int:
    """Rows of `features.safetensors`; -1 where it holds anything else."""
    held = load_file(root / FEATURES)
    return len(held[_KEY]) if list(held) == [_KEY] else -1
