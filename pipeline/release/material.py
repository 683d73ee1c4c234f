"""What a pack is made from, and the names of what it holds where `core.layout` has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.decisions import Decision
from pipeline.data.batches.dataset import DataSet
from pipeline.data.synthetic_files import FileFormat
from pipeline.release.features import Features
from pipeline.release.leaks import Secrets

README = "README.md"
CARD = "card.json"
CROISSANT = "croissant.json"
PROVENANCE = "provenance.csv"
IMAGES_FOLDER = "images"
GENERATOR_FOLDER = "generator"
WEIGHTS = "generator.safetensors"
FORMAT = "radaug-release-pack-1"


@dataclass(frozen=True)
class Material:
    """What a pack is made from.

    Attributes:
        synthetic: the set that was audited.
        rows: of it, that go into the pack.
        gan: the directory of its generator: its description, weights, and a DP certificate where there is one.
        description: the generator's `model.json`.
        spacing: mm a voxel; `spacing_known`: whether the source states it.
        decision: what the gate said, with its reasons and evidence.
        near_copies: how many near copies were left out of the pack, of how many images, and by which threshold.
        cohort: how many patients and images it was made from, and how many were never seen.
        features: of the images at `rows`, where the pack shall hold them.
        limits: of these images, beside those of any pack.
        secrets: what of the source must not be in the pack.
        x_ray: whether 2D images without a unit are X-rays.
        uid_root, xray_orientation, license: of the configuration's `release:`.
    """

    synthetic: DataSet
    rows: np.ndarray
    gan: Path
    description: Mapping[str, Any]
    spacing: tuple[float, ...]
    spacing_known: bool
    decision: Decision
    near_copies: Mapping[str, Any]
    cohort: Mapping[str, int]
    secrets: Secrets
    features: Features | None = None
    limits: tuple[str, ...] = ()
    x_ray: bool = True
    uid_root: str = ""
    xray_orientation: tuple[str, str] = ("L", "F")
    license: str = ""


@dataclass(frozen=True)
class Wanted:
    """What shall be in the pack: no format means features alone; `today` is the date that it bears, else the day's."""

    formats: tuple[FileFormat, ...]
    generator: bool = False
    today: str = ""
