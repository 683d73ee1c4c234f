"""The table of GAN families: one file each. A file is found by its name and imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.adversarial.cells import blind
from pipeline.adversarial.family import Family
from pipeline.config.by_name import ByName
from pipeline.config.families import PACKAGE
from pipeline.config.gan import GanConfig

FAMILIES: Mapping[str, Family[Any]] = ByName(PACKAGE, "FAMILY")


def learns_from_pool(config: GanConfig) -> bool:
    """Whether the family's recipe reads the stream of unlabelled images, or a translator learns from archives."""
    return blind(config) or "unlabelled" in FAMILIES[config.family].recipe(config).streams
