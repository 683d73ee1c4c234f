"""What an arm's classifiers look at: Grad-CAM of the same held-out images for every arm, averaged over its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from pipeline.core.files import atomic_path
from pipeline.core.layout import ATTENTION, ATTENTION_MAPS
from pipeline.core.seeds import numpy_generator
from pipeline.data.batches.dataset import write_table
from pipeline.downstream.material import Material
from pipeline.supervised.attention import attention_maps

MOST_IMAGES = 60


def attended_rows(material: Material) -> np.ndarray:
    """Test images of the fold, by lot, the same for every arm: `MOST_IMAGES` at most."""
    drawn = numpy_generator(material.seed, "attention").permutation(material.rows("test"))
    return np.sort(drawn[:MOST_IMAGES])


def keep_maps(path: Path, net: nn.Module, material: Material) -> None:
    """Keep a classifier's maps at `path`; nothing where there is no test image, or its network has no grid for each."""
    rows = attended_rows(material)
    maps = attention_maps(net, material.dataset, rows, material.classes, material.hardware) if len(rows) else None
    if maps is not None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, maps)


def write_attention(out_dir: Path, material: Material, kept: Mapping[str, Iterable[Path]]) -> None:
    """Write the mean maps of each arm that has any: attention.npy [rows, *grid] uint8, and attention.csv for its rows.

    Args:
        kept: by arm, where `keep_maps` may have left its classifiers' maps.
    """
    found = {arm: [np.load(path) for path in paths if path.is_file()] for arm, paths in kept.items()}
    means = {arm: np.rint(np.mean(maps, axis=0)).astype(np.uint8) for arm, maps in found.items() if maps}
    if not means:
        return
    images = material.dataset.manifest["image_id"].iloc[attended_rows(material)]
    tables = [pd.DataFrame({"arm": arm, "image_id": images, "classifiers": len(found[arm])}) for arm in means]
    write_table(out_dir / ATTENTION, pd.concat(tables, ignore_index=True))
    with atomic_path(out_dir / ATTENTION_MAPS) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(list(means.values())))
