"""Sweeps: the same latents asked for every class, and with one attribute from low to high. What a row shows is what
the generator changes for that one thing; everything else is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.core.files import atomic_path
from pipeline.core.layout import SWEEPS, SWEPT_PLANES
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import write_table
from pipeline.data.batches.scaling import Scaling
from pipeline.nets.conditions import Condition
from pipeline.synthesis.generate import TrainedGenerator

LATENTS, STEPS = 4, 7
ENDS = (5.0, 95.0)
"""Percentiles of the training images' values, between which an attribute is swept: beyond them nothing was learnt."""
CLASS = "class"

Asked = tuple[torch.Tensor, Condition]


@dataclass(frozen=True)
class Sweep:
    """One latent under one swept thing.

    Attributes:
        kind: `CLASS` or `attribute`.
        name: of the attribute; empty for classes.
        label: the class that the latent was drawn for.
        values: what each image was asked for.
    """

    kind: str
    name: str
    latent: int
    label: str
    values: tuple[str, ...]
    asked: tuple[Asked, ...]


def sweeps(generator: TrainedGenerator, seed: int) -> Iterator[Sweep]:
    """All sweeps of a generator: none where it knows one class, or makes its images from others' images.

    Masks and attributes of a latent come from one training image and are held while the class, or one attribute, moves.
    """
    if generator.needs_source:
        return
    for latent in range(LATENTS):
        label = generator.classes[latent % len(generator.classes)]
        z, condition = generator.asked(label, derive_seed(seed, "sweep", latent))
        if len(generator.classes) > 1:
            numbers = torch.arange(len(generator.classes), device=generator.device).split(1)
            asked = tuple((z, replace(condition, label=one)) for one in numbers)
            yield Sweep(CLASS, "", latent, label, tuple(generator.classes), asked)
        for place, (name, known) in enumerate(generator.attributes.items()):
            read, own = (_between(column) for column in known.T)
            asked = tuple((z, replace(condition, attributes=_moved(condition, place, one))) for one in read)
            yield Sweep("attribute", name, latent, label, tuple(f"{one:.6g}" for one in own), asked)


def write_sweeps(generator: TrainedGenerator, scaling: Scaling, seed: int, psi: float, out_dir: Path) -> None:
    """Write sweeps.csv, a row an image, and its images in stored numbers: sweeps.npy [N, C, *plane].

    Of a volume the middle axial plane is kept, [N, C, x, y, 1]. Nothing is written where nothing can be swept.
    """
    rows, planes = [], []
    for one in sweeps(generator, seed):
        images = generator.made(one.asked, psi)
        middle = images if images.ndim == 4 else images[..., images.shape[-1] // 2, None]
        planes.append(scaling.to_stored(scaling.to_physical(middle)))
        rows += [
            {"kind": one.kind, "name": one.name, "latent": str(one.latent), "label": one.label, "value": value}
            for value in one.values
        ]
    if rows:
        write_table(out_dir / SWEEPS, pd.DataFrame(rows))
        with atomic_path(out_dir / SWEPT_PLANES) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(planes).astype(scaling.dtype))


def _between(column: np.ndarray) -> np.ndarray:
    low, high = (float(end) for end in np.percentile(column, ENDS))
    return np.linspace(low, high, STEPS)


def _moved(condition: Condition, place: int, value: float) -> torch.Tensor:
    assert condition.attributes is not None
    moved = condition.attributes.clone()
    moved[:, place] = float(value)
    return moved
